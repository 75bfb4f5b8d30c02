// The loss of tokens that are predicted in an order of their own: who knows of whom, the same on
// every mesh, and in a fraction of the memory that all logits would take.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/autograd/tape.h"
#include "kernels/tensor/transfer.h"
#include "tests/testing/rank_runner.h"
#include "worker/optimizer/gradients.h"
#include "worker/tasks/task.h"

namespace weft {
namespace {

constexpr int64_t kRows = 4, kTokens = 13, kCount = 4, kVocabulary = 50;

ModelConfigPtr config(double dropout = 0) {
  const ModelFamily& family = *find_family("xlnet");
  const auto small = *family.parse_config(R"({"d_model": 24, "n_head": 3, "n_layer": 2,
      "d_inner": 32, "initializer_range": 0.3, "vocab_size": 50})");
  return family.with_predictions(family.with_dropout(*small, dropout));
}

// Places 2, 5, 6 and 11 in orders of their own; the last row predicts two of them, and is short.
TaskRows permuted_rows() {
  constexpr int64_t kPlaces[kCount] = {2, 5, 6, 11};
  TaskRows rows{.rows = kRows, .tokens = kTokens};
  rows.predictions = kCount;
  for (int64_t row = 0; row < kRows; ++row) {
    const bool is_short = row + 1 == kRows;
    for (int64_t token = 0; token < kTokens; ++token) {
      rows.ids.push_back((row * 31 + token * token * 7 + 3) % kVocabulary);
      rows.valid.push_back(!is_short || token < 9 ? 1 : 0);
      rows.token_types.push_back(token / 7);
      rows.order.push_back(0);
    }
    const int64_t count = is_short ? 2 : kCount;
    for (int64_t k = 0; k < kCount; ++k) {
      const int64_t place = k < count ? kPlaces[k] : 0;
      rows.places.push_back(place);
      const auto at = static_cast<size_t>(row * kTokens + place);
      rows.labels.push_back(k < count ? rows.ids[at] : kNoLabel);
      if (k < count) rows.order[at] = 1 + (k + row) % count;
    }
  }
  return rows;
}

struct Made {
  std::unique_ptr<Trunk> trunk;
  std::unique_ptr<Task> task;
};

Made make(Rank& rank, double dropout = 0) {
  Made made;
  made.trunk = *find_family("xlnet")->make_trunk(rank, config(dropout));
  initialize_parameters(made.trunk->parameters(), 3);
  made.task = *make_task(rank, "permutation_lm", made.trunk->config(), {.name = "p"});
  initialize_parameters(made.task->parameters(), 4);
  return made;
}

std::vector<float> logits_of(Rank& rank, Made& made, const TaskRows& rows) {
  Context cx = rank.context();
  NoGrad guard(cx);
  return made.task->logits(cx, *made.trunk, made.task->assemble(rows, {0, rows.rows}))
      .to_vector<float>();
}

// What stands at a place reaches the predictions behind it in the order, and no other; what all see
// reaches all.
TEST(PermutationLm, APredictionKnowsOfThoseBeforeItAlone) {
  testing::run_ranks(1, [](Rank& rank) {
    Made made = make(rank);
    const TaskRows rows = permuted_rows();
    const std::vector<float> before = logits_of(rank, made, rows);
    for (int64_t token = 0; token < kTokens; ++token) {
      TaskRows other = rows;
      other.ids[static_cast<size_t>(token)] += 1;
      const std::vector<float> after = logits_of(rank, made, other);
      const int64_t before_token = rows.order[static_cast<size_t>(token)];
      for (int64_t k = 0; k < kRows * kCount; ++k) {
        const auto asked = static_cast<size_t>(k % kCount);
        const int64_t own = rows.order[static_cast<size_t>(rows.places[asked])];
        const bool knows = k < kCount && before_token < own;
        const auto first = before.begin() + k * kVocabulary;
        const bool same = std::equal(first, first + kVocabulary, after.begin() + k * kVocabulary);
        EXPECT_EQ(same, !knows) << "token " << token << ", prediction " << k;
      }
    }
  });
}

// Two of one place ask with the sum of what they ask, so that a place asked twice answers both
// alike; and other than a place asked once.
TEST(PermutationLm, WhatIsAskedTwiceIsAskedTogether) {
  testing::run_ranks(1, [](Rank& rank) {
    Made made = make(rank);
    const TaskRows rows = permuted_rows();
    TaskRows twice = rows;
    twice.places[0] = twice.places[1];
    const std::vector<float> once = logits_of(rank, made, rows);
    const std::vector<float> both = logits_of(rank, made, twice);
    for (size_t i = 0; i < kVocabulary; ++i) EXPECT_EQ(both[i], both[kVocabulary + i]) << i;
    EXPECT_NE(both[kVocabulary], once[kVocabulary]);
    EXPECT_EQ(both[2 * kVocabulary], once[2 * kVocabulary]);
  });
}

struct Outcome {
  double loss = 0, norm = 0, mask_norm = 0;
  EvaluationSums sums;
};

Outcome outcome(MeshDegrees mesh, double dropout, int64_t micro_batch = 0) {
  Outcome result;
  testing::run_mesh(mesh, [&](Rank& rank) {
    Made made = make(rank, dropout);
    const TaskRows rows = permuted_rows();
    const double count = static_cast<double>(made.task->label_count(rows));
    double sum = 0;
    EvaluationSums sums;
    for (const Part& part : micro_batches(rank.mesh, rows.rows, micro_batch)) {
      TaskBatch batch = made.task->assemble(rows, part);
      batch.seed = 1 / count;
      Context cx = rank.context();
      sums.add(made.task->evaluate(cx, *made.trunk, batch));
      batch.tokens.training = true;
      batch.tokens.random = RandomKey{8, 1};
      Tape tape;
      cx.tape = &tape;
      const Tensor loss = made.task->loss_sum(cx, *made.trunk, batch);
      sum += read_scalar(loss);
      tape.backward(cx, loss, Tensor::full(*rank.allocator, loss.shape(), batch.seed));
    }
    std::vector<Parameter> all = made.trunk->parameters();
    std::vector<Parameter> mask{all[1]};
    all.insert(all.end(), made.task->parameters().begin(), made.task->parameters().end());
    reduce_gradients(rank, all);
    const double norm = global_gradient_norm(rank, all);
    const double mask_norm = global_gradient_norm(rank, mask);
    Tensor whole = Tensor::full(*rank.allocator, {1}, sum, DType::kF64);
    rank.mesh.axis(Axis::kReplica).all_reduce(whole, ReduceOp::kSum);
    sums.reduce(rank);
    if (rank.mesh.index(Axis::kWorld) == 0) {
      result = {read_scalar(whole) / count, norm, mask_norm, sums};
    }
  });
  return result;
}

TEST(PermutationLm, EveryMeshComputesTheSame) {
  for (const double dropout : {0.0, 0.3}) {
    const Outcome alone = outcome({}, dropout);
    EXPECT_EQ(alone.sums.labels, 14);
    EXPECT_GT(alone.norm, 0.1);
    EXPECT_GT(alone.mask_norm, 1e-3);
    const bool drops = dropout > 0;
    EXPECT_EQ(std::abs(alone.loss - alone.sums.loss / 14) > 1e-3, drops);
    for (const MeshDegrees mesh : {MeshDegrees{}, MeshDegrees{.data = 2}, MeshDegrees{.data = 3},
                                   MeshDegrees{.tensor = 2}, MeshDegrees{.tensor = 3},
                                   MeshDegrees{.tensor = 4}, MeshDegrees{.data = 2, .tensor = 2}}) {
      const Outcome other = outcome(mesh, dropout, 1);
      EXPECT_NEAR(other.loss, alone.loss, 1e-5 * alone.loss) << mesh.data << mesh.tensor;
      EXPECT_NEAR(other.norm, alone.norm, 1e-5 * alone.norm) << mesh.data << mesh.tensor;
      EXPECT_NEAR(other.mask_norm, alone.mask_norm, 1e-5 * alone.mask_norm) << mesh.tensor;
      EXPECT_EQ(other.sums.labels, alone.sums.labels);
      EXPECT_EQ(other.sums.correct, alone.sums.correct);
      EXPECT_NEAR(other.sums.loss, alone.sums.loss, 1e-5 * alone.sums.loss);
    }
  }
}

TEST(PermutationLm, NothingPredictedIsNoLoss) {
  testing::run_ranks(1, [](Rank& rank) {
    Made made = make(rank);
    TaskRows rows = permuted_rows();
    rows.labels.assign(rows.labels.size(), kNoLabel);
    EXPECT_EQ(made.task->label_count(rows), 0);
    Context cx = rank.context();
    const TaskBatch batch = made.task->assemble(rows, {0, rows.rows});
    EXPECT_EQ(read_scalar(made.task->loss_sum(cx, *made.trunk, batch)), 0);
    EXPECT_EQ(made.task->evaluate(cx, *made.trunk, batch).labels, 0);
  });
}

// What stands for a predicted token decays where something trains it alone.
TEST(PermutationLm, WhatNothingReadsDoesNotDecay) {
  const ModelFamily& family = *find_family("xlnet");
  const auto plain = *family.parse_config("{}");
  EXPECT_EQ(family.plan(*plain, 1, 0)[1].name, "transformer.mask_emb");
  EXPECT_FALSE(family.plan(*plain, 1, 0)[1].decay);
  EXPECT_TRUE(family.plan(*family.with_predictions(plain), 1, 0)[1].decay);
}

}  // namespace
}  // namespace weft
