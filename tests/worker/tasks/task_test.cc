#include "worker/tasks/task.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/rank_runner.h"

namespace weft {
namespace {

constexpr int64_t kPad = 0;
constexpr const char* kConfig = R"({"n_embd": 12, "n_head": 3, "n_layer": 1, "vocab_size": 23,
    "n_positions": 12, "initializer_range": 0.4, "pad_token_id": 0})";

std::unique_ptr<Trunk> make_model(Rank& rank) {
  const ModelFamily* family = find_family("gpt2");
  auto trunk = *family->make_trunk(rank, *family->parse_config(kConfig));
  initialize_parameters(trunk->parameters(), 3);
  return trunk;
}

std::unique_ptr<Task> make(Rank& rank, const Trunk& trunk, const std::string& type) {
  auto task = make_task(rank, type, trunk.config(), {.name = "a.b", .labels = 4});
  EXPECT_TRUE(task) << task.error().to_string();
  initialize_parameters((*task)->parameters(), 4);
  return std::move(*task);
}

// 5 rows of 10 tokens; row r has r tokens of padding, in front or behind. Labels: the row's number
// modulo 4, of classification.
TaskRows rows_with_padding(bool left, bool classes) {
  TaskRows rows;
  rows.rows = 5;
  rows.tokens = 10;
  for (int64_t row = 0; row < rows.rows; ++row) {
    for (int64_t token = 0; token < rows.tokens; ++token) {
      const bool real = left ? token >= row : token < rows.tokens - row;
      const int64_t number = left ? token - row : token;
      rows.ids.push_back(real ? 1 + (row * 7 + number * 5) % 22 : kPad);
      rows.valid.push_back(real ? 1 : 0);
      rows.positions.push_back(real ? number : 0);
    }
    if (classes) rows.labels.push_back(row % 4);
  }
  return rows;
}

TEST(CausalLm, PredictsTheNextValidTokenOfTheDocument) {
  testing::run_ranks(1, [](Rank& rank) {
    auto trunk = make_model(rank);
    auto task = make(rank, *trunk, "causal_lm");
    EXPECT_TRUE(task->parameters().empty());
    TaskRows rows;
    rows.rows = 1;
    rows.tokens = 6;
    rows.ids = {1, 2, 3, 4, 5, 0};
    rows.valid = {1, 1, 1, 1, 1, 0};
    rows.documents = {0, 0, 1, 1, 1, -1};
    const std::vector<int64_t> expected{2, kNoLabel, 4, 5, kNoLabel, kNoLabel};
    EXPECT_EQ(task->assemble(rows, {0, 1}).labels.to_vector<int64_t>(), expected);
    EXPECT_EQ(task->label_count(rows), 3);
    rows.labels = {9, 8, kNoLabel, 7, 6, kNoLabel};  // given: shifted only
    const std::vector<int64_t> given{8, kNoLabel, 7, 6, kNoLabel, kNoLabel};
    EXPECT_EQ(task->assemble(rows, {0, 1}).labels.to_vector<int64_t>(), given);
  });
}

TEST(CausalLm, LabelsCrossTheBorderOfTheSequenceAxis) {
  testing::run_mesh({.sequence = 3}, [](Rank& rank) {
    auto trunk = make_model(rank);
    auto task = make(rank, *trunk, "causal_lm");
    TaskRows rows;
    rows.rows = 1;
    rows.tokens = 7;
    rows.ids = {1, 2, 3, 4, 5, 6, 7};
    const TaskBatch batch = task->assemble(rows, {0, 1});
    std::vector<int64_t> labels, positions;
    for (const Part& run : batch.tokens.layout->runs(rank.mesh.index(Axis::kSequence))) {
      for (int64_t token = run.start; token < run.start + run.length; ++token) {
        labels.push_back(token == 6 ? kNoLabel : token + 2);
        positions.push_back(token);
      }
    }
    EXPECT_GE(labels.size(), 2U);
    EXPECT_EQ(batch.labels.to_vector<int64_t>(), labels);
    EXPECT_EQ(batch.tokens.positions.to_vector<int64_t>(), positions);
  });
}

struct Outcome {
  EvaluationSums sums;
  double loss_sum = 0;
};

Outcome outcome_on(MeshDegrees mesh, const std::string& type, const TaskRows& rows) {
  Outcome outcome;
  testing::run_mesh(mesh, [&](Rank& rank) {
    auto trunk = make_model(rank);
    auto task = make(rank, *trunk, type);
    EvaluationSums sums;
    EvaluationSums losses;
    for (const Part& part : micro_batches(rank.mesh, rows.rows, 2)) {
      const TaskBatch batch = task->assemble(rows, part);
      Context cx = rank.context();
      sums.add(task->evaluate(cx, *trunk, batch));
      losses.loss += double{*task->loss_sum(cx, *trunk, batch).data<float>()};
    }
    sums.reduce(rank);
    losses.reduce(rank);
    EXPECT_EQ(sums.labels, task->label_count(rows));
    if (rank.mesh.index(Axis::kWorld) == 0) outcome = {sums, losses.loss};
  });
  return outcome;
}

TEST(Tasks, EvaluateTheSameOnEveryMesh) {
  for (const std::string type : {"causal_lm", "sequence_classification"}) {
    for (bool left : {false, true}) {
      const TaskRows rows = rows_with_padding(left, type != "causal_lm");
      const Outcome whole = outcome_on({}, type, rows);
      EXPECT_NEAR(whole.loss_sum, whole.sums.loss, 1e-4);
      for (const MeshDegrees& mesh :
           {MeshDegrees{.data = 2}, MeshDegrees{.data = 6}, MeshDegrees{.sequence = 3},
            MeshDegrees{.tensor = 3}, MeshDegrees{.data = 2, .sequence = 2},
            MeshDegrees{.sequence = 2, .tensor = 2}}) {
        const Outcome other = outcome_on(mesh, type, rows);
        EXPECT_EQ(other.sums.labels, whole.sums.labels);
        EXPECT_EQ(other.sums.correct, whole.sums.correct);
        EXPECT_NEAR(other.sums.loss / whole.sums.loss, 1.0, 1e-5);
        EXPECT_NEAR(other.loss_sum / whole.loss_sum, 1.0, 1e-5);
      }
    }
  }
}

// With positions that follow the tokens, padding in front and behind are the same to the model.
TEST(Tasks, PaddingOnEitherSideAgrees) {
  for (const std::string type : {"causal_lm", "sequence_classification"}) {
    const bool classes = type != "causal_lm";
    const Outcome right = outcome_on({}, type, rows_with_padding(false, classes));
    const Outcome left = outcome_on({}, type, rows_with_padding(true, classes));
    EXPECT_EQ(left.sums.labels, right.sums.labels);
    EXPECT_NEAR(left.sums.loss / right.sums.loss, 1.0, 1e-5);
    EXPECT_EQ(left.sums.correct, right.sums.correct);
  }
}

TEST(SequenceClassification, PoolsTheLastTokenThatIsNotPadding) {
  testing::run_mesh({.sequence = 2}, [](Rank& rank) {
    auto trunk = make_model(rank);
    auto task = make(rank, *trunk, "sequence_classification");
    ASSERT_EQ(task->parameters().size(), 1U);
    EXPECT_EQ(task->parameters()[0].info.name, "a.b.score.weight");
    EXPECT_EQ(task->file_name("a.b.score.weight"), "score.weight");
    const TaskRows rows = rows_with_padding(false, true);
    const TaskBatch batch = task->assemble(rows, {0, 5});
    // The last tokens are 9, 8, 7, 6, 5, each on one of the ranks.
    const std::vector<int64_t> labels{0, 1, 2, 3, 0};
    for (int64_t row = 0; row < 5; ++row) {
      const int64_t place = batch.tokens.layout->find(rank.mesh.index(Axis::kSequence), 9 - row);
      EXPECT_EQ(batch.pooled.data<int64_t>()[row], place);
      EXPECT_EQ(batch.labels.data<int64_t>()[row],
                place < 0 ? kNoLabel : labels[static_cast<size_t>(row)]);
    }
  });
}

// The tokenizer's id for padding need not be the model's.
TEST(SequenceClassification, PaddingIsPassedOverWhateverItsId) {
  testing::run_ranks(1, [](Rank& rank) {
    auto trunk = make_model(rank);
    auto task = make(rank, *trunk, "sequence_classification");
    TaskRows rows = rows_with_padding(false, true);
    for (size_t i = 0; i < rows.ids.size(); ++i) {
      if (rows.valid[i] == 0) rows.ids[i] = kPad + 5;
    }
    rows.ids[8] = rows.ids[9] = kPad;  // tokens of row 0
    const TaskBatch batch = task->assemble(rows, {0, 5});
    EXPECT_EQ(batch.pooled.to_vector<int64_t>(), (std::vector<int64_t>{7, 8, 7, 6, 5}));
  });
}

TEST(MicroBatches, CoverTheRowsOfEachRank) {
  testing::run_ranks(3, [](Rank& rank) {
    const std::vector<Part> parts = micro_batches(rank.mesh, 8, 2);
    const int index = rank.mesh.index(Axis::kData);
    ASSERT_EQ(parts.size(), index < 2 ? 2U : 1U);
    EXPECT_EQ(parts[0].start, index * 3);
    EXPECT_EQ(parts[0].length, 2);
    if (index < 2) {
      EXPECT_EQ(parts[1].length, 1);
    }
    EXPECT_EQ(micro_batches(rank.mesh, 8, 0).size(), 1U);
    EXPECT_EQ(micro_batches(rank.mesh, 2, 0).size(), index < 2 ? 1U : 0U);
  });
}

TEST(MakeTask, RefusesWhatItDoesNotKnow) {
  testing::run_ranks(1, [](Rank& rank) {
    auto trunk = make_model(rank);
    EXPECT_FALSE(make_task(rank, "translation", trunk->config(), {.name = "t"}));
    EXPECT_FALSE(
        make_task(rank, "sequence_classification", trunk->config(), {.name = "t", .labels = 1}));
  });
}

TEST(Metrics, AreMeansOverTheLabels) {
  testing::run_ranks(1, [](Rank& rank) {
    auto trunk = make_model(rank);
    auto task = make(rank, *trunk, "causal_lm");
    const auto metrics = task->metrics({.loss = 8, .labels = 4, .correct = 1});
    EXPECT_EQ(metrics.at("loss"), 2.0);
    EXPECT_EQ(metrics.at("accuracy"), 0.25);
    EXPECT_NEAR(metrics.at("perplexity"), std::exp(2.0), 1e-12);
  });
}

}  // namespace
}  // namespace weft
