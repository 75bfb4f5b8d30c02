// Topology-invariant training of XLNet, whose scores have terms by distance and segment: the bits
// of one rank on other meshes, at each level of ZeRO and kind of recomputation; in evaluations too.
#include <cmath>

#include "tests/worker/trainer/topology_tasks_fixture.h"

namespace weft {
namespace {

using testing::difference;
using testing::Trace;

class RelativeTopology : public TopologyTasks {
 protected:
  void SetUp() override {
    TopologyTasks::SetUp();
    write_tasks(WEFT_SOURCE_DIR);
    write_typed_tokenizer(WEFT_SOURCE_DIR);
  }

  std::map<std::pair<int64_t, std::string>, double> evaluated(const std::string& text,
                                                              MeshDegrees mesh) {
    MemoryCluster cluster;
    EXPECT_TRUE(train(record(text, mesh), cluster).ok());
    std::map<std::pair<int64_t, std::string>, double> values;
    for (const proto::MetricRecord& each : cluster.metrics) {
      for (const auto& [name, value] : each.values()) {
        if (name.starts_with("validation_")) values[{each.step(), name}] = value;
      }
    }
    EXPECT_TRUE(values.contains({4, "validation_loss"})) << text;
    return values;
  }
};

TEST_F(RelativeTopology, HasTheBitsOfOneRank) {
  for (const char* task : {kChoices, kPairs}) {
    for (const double dropout : {0.0, 0.1}) {
      const std::string text = relative_job(task, "batch_size: 16", dropout);
      const Trace one = run(text, {}, 0, 3);
      expect_near(one, run(as_usual(text), {}, 0, 3));
      const std::string half = relative_job(task, "batch_size: 16, precision: bf16", dropout);
      const Trace half_one = run(half, {}, 0, 3);
      for (const MeshDegrees mesh :
           {MeshDegrees{2, 1, 1}, MeshDegrees{1, 1, 2}, MeshDegrees{2, 1, 2}, MeshDegrees{1, 2, 4},
            MeshDegrees{1, 4, 1}}) {
        EXPECT_EQ(difference(one, run(text, mesh, 0, 3)), "")
            << mesh.data << mesh.sequence << mesh.tensor << text;
        EXPECT_EQ(difference(half_one, run(half, mesh, 0, 3)), "")
            << mesh.data << mesh.sequence << mesh.tensor << half;
      }
    }
  }
}

TEST_F(RelativeTopology, EvaluatesAlike) {
  const std::string text = relative_job(kChoices, "batch_size: 16, evaluate_every: 4");
  const auto found = evaluated(text, {});
  EXPECT_EQ(evaluated(text, {2, 1, 2}), found);
  for (const auto& [key, value] : evaluated(as_usual(text), {})) {
    EXPECT_NEAR(found.at(key), value, 1e-4 * std::abs(value)) << key.second;
  }
}

TEST_F(RelativeTopology, EachRecomputationAndLevelHasTheSameBits) {
  for (const char* precision : {"fp32", "bf16"}) {
    const std::string settings =
        std::string("batch_size: 32, micro_batch_size: 16, precision: ") + precision;
    const Trace kept = run(relative_job(kChoices, settings), {}, 0, 3);
    for (const char* what : {"selective", "full"}) {
      const std::string text =
          relative_job(kChoices, settings + ", activation_checkpointing: " + what);
      EXPECT_EQ(difference(kept, run(text, {}, 0, 3)), "") << text;
      std::string shared = text;
      shared.replace(shared.find("micro_batch_size: 16"), 20, "micro_batch_size: 8 ");
      for (const int zero : {1, 2, 3}) {
        EXPECT_EQ(difference(kept, run(shared, {2, 1, 2}, zero, 3)), "") << zero << text;
      }
    }
  }
}

}  // namespace
}  // namespace weft
