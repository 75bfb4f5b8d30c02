// Topology-invariant training of an encoder's tasks and of an encoder-decoder's, each of which has
// sums of its own: the bits of one rank on other meshes, in evaluations too, whose last batch is
// not full. topology_meshes_test.cc has every mesh.
#include <cmath>
#include <functional>

#include "tests/worker/trainer/topology_tasks_fixture.h"

namespace weft {
namespace {

using testing::difference;
using testing::Trace;

using Evaluated = std::map<std::pair<int64_t, std::string>, double>;

class TasksOnMeshes : public TopologyTasks {
 protected:
  void SetUp() override {
    TopologyTasks::SetUp();
    write_tasks(WEFT_SOURCE_DIR);
  }

  // Of each evaluation, by its step.
  Evaluated evaluated(const std::string& text, MeshDegrees mesh) {
    MemoryCluster cluster;
    EXPECT_TRUE(train(record(text, mesh), cluster).ok());
    Evaluated values;
    for (const proto::MetricRecord& each : cluster.metrics) {
      for (const auto& [name, value] : each.values()) {
        if (name.starts_with("validation_")) values[{each.step(), name}] = value;
      }
    }
    EXPECT_TRUE(values.contains({4, "validation_loss"})) << text;
    return values;
  }

  // Three steps' bits and those of what an evaluation says, near those of any job.
  void expect_the_bits_of_one_rank(const std::string& task, const std::string& settings) {
    expect_the_bits_of_one_rank(
        [&](const std::string& more) { return tasks_job(task, settings + more); });
  }
  // job: with further settings.
  void expect_the_bits_of_one_rank(const std::function<std::string(const std::string&)>& job) {
    const std::string text = job("");
    const Trace one = run(text, {}, 0, 3);
    EXPECT_EQ(difference(one, run(text, {2, 1, 2}, 0, 3)), "") << text;
    expect_near(one, run(as_usual(text), {}, 0, 3));
    const std::string half = job(", precision: bf16");
    EXPECT_EQ(difference(run(half, {}, 0, 3), run(half, {1, 2, 4}, 0, 3)), "") << half;

    const std::string evaluates = job(", evaluate_every: 4");
    const Evaluated found = evaluated(evaluates, {});
    EXPECT_EQ(evaluated(evaluates, {2, 1, 2}), found);
    for (const auto& [key, value] : evaluated(as_usual(evaluates), {})) {
      EXPECT_NEAR(found.at(key), value, 1e-4 * std::abs(value)) << key.second << text;
    }
  }
};

TEST_F(TasksOnMeshes, PredictMaskedTokens) {
  expect_the_bits_of_one_rank(kMasked, "batch_size: 2");
}

// Two ranks share a row, in two rounds, of which each chooses other tokens.
TEST_F(TasksOnMeshes, PredictMaskedTokensOfRowsThatRanksShare) {
  const std::string text = tasks_job(kMasked, "batch_size: 4, micro_batch_size: 2");
  EXPECT_EQ(difference(run(text, {}, 0, 3), run(text, {1, 4, 1}, 2, 3)), "");
}

// Of a block's input in bf16, which its query, key, value and residual read.
TEST_F(TasksOnMeshes, EachRecomputationHasTheSameBits) {
  const std::string settings = "batch_size: 8, precision: bf16";
  const Trace kept = run(tasks_job(kMasked, settings), {}, 0, 3);
  for (const char* what : {"selective", "full"}) {
    const std::string text = tasks_job(kMasked, settings + ", activation_checkpointing: " + what);
    EXPECT_EQ(difference(kept, run(text, {1, 1, 2}, 0, 3)), "") << what;
  }
}

TEST_F(TasksOnMeshes, TellChoicesApart) { expect_the_bits_of_one_rank(kChoices, "batch_size: 16"); }

TEST_F(TasksOnMeshes, TellPairsApart) { expect_the_bits_of_one_rank(kPairs, "batch_size: 16"); }

TEST_F(TasksOnMeshes, FindAnswers) { expect_the_bits_of_one_rank(kQuestions, "batch_size: 8"); }

// Tables by distance that all rows and blocks share, states that each of the decoder's layers
// reads, and a table of tokens with two or three gradients.
TEST_F(TasksOnMeshes, WriteTargets) {
  for (const char* model : {kRelu, kGated}) {
    expect_the_bits_of_one_rank(
        [&](const std::string& more) { return writing_job(model, "batch_size: 16" + more); });
    const std::string rounds = writing_job(model, "batch_size: 16, micro_batch_size: 8");
    EXPECT_EQ(difference(run(rounds, {}, 0, 3), run(rounds, {1, 2, 2}, 2, 3)), "") << rounds;
  }
}

// Tokens that ranks make of a recording's windows, and weights that they do so with.
TEST_F(TasksOnMeshes, WriteWhatTheyHear) {
  add_recordings(19);
  expect_the_bits_of_one_rank(
      [&](const std::string& more) { return hearing_job("batch_size: 16" + more); });
  const std::string rounds = hearing_job("batch_size: 16, micro_batch_size: 8");
  EXPECT_EQ(difference(run(rounds, {}, 0, 3), run(rounds, {1, 2, 2}, 2, 3)), "") << rounds;
  for (const char* what : {"selective", "full"}) {
    const std::string text = hearing_job("batch_size: 16, micro_batch_size: 8, " +
                                         std::string("activation_checkpointing: ") + what);
    EXPECT_EQ(difference(run(rounds, {}, 0, 3), run(text, {1, 2, 4}, 3, 3)), "") << text;
  }
}

TEST_F(TasksOnMeshes, WriteTargetsWithEachRecomputationAndLevel) {
  for (const char* precision : {"fp32", "bf16"}) {
    const std::string settings = std::string("batch_size: 16, precision: ") + precision;
    const Trace kept = run(writing_job(kRelu, settings), {}, 0, 3);
    for (const char* what : {"none", "selective", "full"}) {
      const std::string text = writing_job(kRelu, settings + ", activation_checkpointing: " + what);
      EXPECT_EQ(difference(kept, run(text, {}, 0, 3)), "") << text;
      for (const int zero : {1, 2, 3}) {
        EXPECT_EQ(difference(kept, run(text, {2, 1, 2}, zero, 3)), "") << zero << text;
      }
    }
  }
}

}  // namespace
}  // namespace weft
