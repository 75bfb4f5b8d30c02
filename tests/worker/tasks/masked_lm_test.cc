// The loss of masked tokens: the same in little room and in much, on every mesh, and in a fraction
// of the memory that the logits would take.
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "kernels/autograd/tape.h"
#include "kernels/tensor/transfer.h"
#include "tests/testing/rank_runner.h"
#include "worker/optimizer/gradients.h"
#include "worker/tasks/task.h"

namespace weft {
namespace {

struct Sizes {
  int64_t vocabulary = 50, rows = 4, tokens = 16;
};

// Every seventh token is predicted; of the last row none.
TaskRows masked_rows(const Sizes& sizes) {
  TaskRows rows;
  rows.rows = sizes.rows;
  rows.tokens = sizes.tokens;
  for (int64_t i = 0; i < rows.rows * rows.tokens; ++i) {
    rows.ids.push_back((i * 11 + 3) % sizes.vocabulary);
    const bool predicted = i % 7 == 2 && i < (rows.rows - 1) * rows.tokens;
    rows.labels.push_back(predicted ? (i * 5 + 1) % sizes.vocabulary : kNoLabel);
  }
  return rows;
}

struct Outcome {
  double loss = 0, norm = 0;
  int64_t places = 0, peak = 0;
};

// Mean loss, norm of its gradients and, of rank 0, the room for predicted tokens and the memory at
// most beyond what was there.
Outcome run(const Sizes& sizes, double rate, MeshDegrees mesh = {}) {
  Outcome result;
  testing::run_mesh(mesh, [&](Rank& rank) {
    const ModelFamily* family = find_family("bert");
    auto trunk = *family->make_trunk(
        rank, *family->parse_config(
                  R"({"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 1,
                      "intermediate_size": 32, "max_position_embeddings": 512,
                      "initializer_range": 0.3, "vocab_size": )" +
                  std::to_string(sizes.vocabulary) + "}"));
    initialize_parameters(trunk->parameters(), 3);
    auto task = *make_task(rank, "masked_lm", trunk->config(), {.name = "m", .mask_rate = rate});
    initialize_parameters(task->parameters(), 4);
    const TaskRows rows = masked_rows(sizes);
    const double count = static_cast<double>(task->label_count(rows));
    const Part part = micro_batches(rank.mesh, rows.rows, 0).front();
    TaskBatch batch = task->assemble(rows, part);
    batch.seed = 1 / count;
    rank.allocator->reset_peak();
    const int64_t before = rank.allocator->stats().peak_bytes;
    Tape tape;
    Context cx = rank.context();
    cx.tape = &tape;
    const Tensor sum = task->loss_sum(cx, *trunk, batch);
    tape.backward(cx, sum, Tensor::full(*rank.allocator, sum.shape(), batch.seed));
    const int64_t peak = rank.allocator->stats().peak_bytes - before;
    std::vector<Parameter> all = trunk->parameters();
    all.insert(all.end(), task->parameters().begin(), task->parameters().end());
    reduce_gradients(rank, all);
    const double norm = global_gradient_norm(rank, all);
    Tensor whole = Tensor::full(*rank.allocator, {1}, read_scalar(sum), DType::kF64);
    rank.mesh.axis(Axis::kReplica).all_reduce(whole, ReduceOp::kSum);
    if (rank.mesh.index(Axis::kWorld) != 0) return;
    result = {read_scalar(whole) / count, norm, batch.pooled.elements(), peak};
  });
  return result;
}

TEST(MaskedLm, RoomAndMeshChangeNothing) {
  const Outcome whole = run({}, 1);
  EXPECT_EQ(whole.places, 64);
  EXPECT_GT(whole.norm, 0.1);
  const Outcome little = run({}, 0.15);
  EXPECT_LT(little.places, 64);
  EXPECT_NEAR(little.loss, whole.loss, 1e-6 * whole.loss);
  EXPECT_NEAR(little.norm, whole.norm, 1e-5 * whole.norm);
  for (const MeshDegrees mesh :
       {MeshDegrees{.data = 2}, MeshDegrees{.data = 4}, MeshDegrees{.sequence = 2},
        MeshDegrees{.sequence = 3}, MeshDegrees{.tensor = 2}, MeshDegrees{.tensor = 3},
        MeshDegrees{.data = 2, .tensor = 2}, MeshDegrees{.sequence = 2, .tensor = 2}}) {
    for (const double rate : {0.15, 1.0}) {
      const Outcome found = run({}, rate, mesh);
      EXPECT_NEAR(found.loss, whole.loss, 1e-5 * whole.loss) << mesh.data << mesh.sequence;
      EXPECT_NEAR(found.norm, whole.norm, 1e-4 * whole.norm) << mesh.data << mesh.sequence;
    }
  }
}

TEST(MaskedLm, NothingPredictedIsNoLoss) {
  testing::run_ranks(1, [](Rank& rank) {
    const ModelFamily* family = find_family("bert");
    auto trunk = *family->make_trunk(
        rank, *family->parse_config(R"({"hidden_size": 8, "num_attention_heads": 2,
              "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 50})"));
    initialize_parameters(trunk->parameters(), 3);
    auto task = *make_task(rank, "masked_lm", trunk->config(), {.name = "m", .mask_rate = 0.1});
    initialize_parameters(task->parameters(), 4);
    TaskRows rows = masked_rows({});
    rows.labels.assign(rows.labels.size(), kNoLabel);
    EXPECT_EQ(task->label_count(rows), 0);
    Context cx = rank.context();
    const TaskBatch batch = task->assemble(rows, {0, rows.rows});
    EXPECT_EQ(read_scalar(task->loss_sum(cx, *trunk, batch)), 0);
    EXPECT_EQ(task->evaluate(cx, *trunk, batch).labels, 0);
  });
}

// 2048 tokens of 30000 words: 246 MB of logits, and as much of their gradients.
TEST(MaskedLm, LogitsNeverStandInMemory) {
  const Sizes sizes{.vocabulary = 30000, .rows = 4, .tokens = 512};
  const int64_t logits = sizes.rows * sizes.tokens * sizes.vocabulary * 4;
  const Outcome result = run(sizes, 0.15);
  EXPECT_LT(result.places, sizes.rows * sizes.tokens / 4);
  EXPECT_LT(result.peak, logits / 3);
  RecordProperty("peak_bytes", std::to_string(result.peak));
  RecordProperty("logits_bytes", std::to_string(logits));
}

TEST(MaskedLm, IsForEncoders) {
  testing::run_ranks(1, [](Rank& rank) {
    const auto refused = [&](const char* family, const char* type) {
      const auto config = *find_family(family)->parse_config("{}");
      const auto task = make_task(rank, type, *config, {.name = "t", .labels = 3});
      EXPECT_FALSE(task) << family << " " << type;
      return task ? std::string() : task.error().to_string();
    };
    EXPECT_EQ(
        refused("gpt2", "masked_lm"),
        "tasks.t.type must be one that gpt2 learns: causal_lm or sequence_classification (got "
        "masked_lm)");
    EXPECT_EQ(
        refused("llama", "token_classification"),
        "tasks.t.type must be one that llama learns: causal_lm or sequence_classification (got "
        "token_classification)");
    EXPECT_EQ(refused("bert", "causal_lm"),
              "tasks.t.type must be one that bert learns: sequence_classification, masked_lm, "
              "token_classification, embedding, multiple_choice or question_answering (got "
              "causal_lm)");
  });
}

}  // namespace
}  // namespace weft
