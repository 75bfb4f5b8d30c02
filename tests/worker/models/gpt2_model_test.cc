#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <mutex>

#include "kernels/autograd/tape.h"
#include "tests/testing/rank_runner.h"
#include "worker/optimizer/gradients.h"
#include "worker/tasks/task.h"

namespace weft {
namespace {

// 5 heads, 13 inner features, 37 tokens, 11 positions: nothing divides evenly.
constexpr const char* kUneven = R"({"n_embd": 20, "n_head": 5, "n_inner": 13, "vocab_size": 37,
    "n_positions": 11, "n_layer": 2, "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1,
    "initializer_range": 0.3, "tie_word_embeddings": false,
    "scale_attn_by_inverse_layer_idx": true})";

const ModelFamily& family() { return *find_family("gpt2"); }
ModelConfigPtr uneven() { return *family().parse_config(kUneven); }

const std::vector<MeshDegrees>& meshes() {
  static const std::vector<MeshDegrees> all{{.data = 2},
                                            {.data = 3},
                                            {.sequence = 2},
                                            {.sequence = 4},
                                            {.tensor = 2},
                                            {.tensor = 3},
                                            {.tensor = 5},
                                            {.tensor = 6},  // more ranks than heads
                                            {.data = 2, .sequence = 2},
                                            {.data = 2, .tensor = 2},
                                            {.sequence = 2, .tensor = 2}};
  return all;
}

TEST(Gpt2Plan, ShardsCoverEachParameterOnce) {
  for (int size : {1, 2, 3, 5}) {
    std::map<std::string, std::vector<int>> seen;
    for (int index = 0; index < size; ++index) {
      for (const ParameterInfo& info : family().plan(*uneven(), size, index)) {
        std::vector<int>& counts = seen[info.name];
        counts.resize(static_cast<size_t>(info.shape.elements()));
        if (info.shard.whole() && index > 0) continue;
        for_each_shard_run(info, [&](int64_t, int64_t global, int64_t count) {
          for (int64_t i = 0; i < count; ++i) ++counts[static_cast<size_t>(global + i)];
        });
      }
    }
    for (const auto& [name, counts] : seen) {
      for (int count : counts) ASSERT_EQ(count, 1) << name << " over " << size;
    }
  }
}

TEST(Gpt2Plan, ARankHoldsItsShareOnly) {
  const ModelConfigPtr config = *family().parse_config(
      R"({"n_embd": 128, "n_head": 8, "vocab_size": 5000, "n_positions": 64, "n_layer": 4})");
  const auto bytes = [&](int size, int index) {
    int64_t total = 0;
    for (const ParameterInfo& info : family().plan(*config, size, index)) {
      int64_t elements = info.shape.elements();
      if (!info.shard.whole()) {
        int64_t length = 0;
        for (const Part& range : info.shard.ranges) length += range.length;
        elements = elements / info.shape[info.shard.dim] * length;
      }
      total += elements * 4;
    }
    return static_cast<double>(total);
  };
  for (int size : {2, 4}) {
    for (int index = 0; index < size; ++index) {
      EXPECT_LE(bytes(size, index), bytes(1, 0) / size * 1.05);
    }
  }
}

TEST(Gpt2Model, StartsFromTheSameWeightsOnEveryMesh) {
  std::map<std::string, std::vector<float>> whole;
  testing::run_ranks(1, [&](Rank& rank) {
    auto trunk = *family().make_trunk(rank, uneven());
    initialize_parameters(trunk->parameters(), 17);
    for (const Parameter& parameter : trunk->parameters()) {
      whole[parameter.info.name] = parameter.value.to_vector<float>();
    }
  });
  EXPECT_EQ(whole.at("transformer.h.1.ln_2.weight").front(), 1.0F);
  EXPECT_EQ(whole.at("transformer.h.1.attn.c_attn.bias").front(), 0.0F);
  const auto deviation = [&](const std::string& name) {
    double squares = 0;
    for (float value : whole.at(name)) squares += double{value} * double{value};
    return std::sqrt(squares / static_cast<double>(whole.at(name).size()));
  };
  EXPECT_NEAR(deviation("transformer.h.0.attn.c_attn.weight"), 0.3, 0.03);
  EXPECT_NEAR(deviation("transformer.h.0.attn.c_proj.weight"), 0.15, 0.02);
  EXPECT_NE(whole.at("transformer.h.0.ln_1.weight"), whole.at("transformer.h.0.ln_1.bias"));
  EXPECT_NE(whole.at("transformer.h.0.mlp.c_fc.weight"),
            whole.at("transformer.h.1.mlp.c_fc.weight"));
  testing::run_mesh({.tensor = 3}, [&](Rank& rank) {
    auto trunk = *family().make_trunk(rank, uneven());
    initialize_parameters(trunk->parameters(), 17);
    for (const Parameter& parameter : trunk->parameters()) {
      const std::vector<float>& expected = whole.at(parameter.info.name);
      for_each_shard_run(parameter.info, [&](int64_t local, int64_t global, int64_t count) {
        for (int64_t i = 0; i < count; ++i) {
          ASSERT_EQ(parameter.value.data<float>()[local + i],
                    expected[static_cast<size_t>(global + i)]);
        }
      });
    }
  });
}

TaskRows some_rows(int64_t rows, int64_t tokens, bool left) {
  TaskRows batch;
  batch.rows = rows;
  batch.tokens = tokens;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t token = 0; token < tokens; ++token) {
      batch.ids.push_back((row * 31 + token * token * 7 + 3) % 37);
      batch.valid.push_back((left ? token >= row % 4 : token < tokens - row % 4) ? 1 : 0);
    }
  }
  return batch;
}

struct Outcome {
  double loss = 0, norm = 0;
};

// Loss and gradient norm of 5 uneven rows with dropout on this mesh.
Outcome outcome_on(MeshDegrees mesh, bool left, int64_t micro_batch) {
  Outcome outcome;
  testing::run_mesh(mesh, [&](Rank& rank) {
    auto trunk = *family().make_trunk(rank, uneven());
    initialize_parameters(trunk->parameters(), 17);
    auto task = *make_task(rank, "causal_lm", trunk->config(), {.name = "lm"});
    const TaskRows rows = some_rows(5, 11, left);
    const double labels = static_cast<double>(task->label_count(rows));
    double sum = 0;
    for (const Part& part : micro_batches(rank.mesh, rows.rows, micro_batch)) {
      Tape tape;
      Context cx = rank.context();
      cx.tape = &tape;
      TaskBatch batch = task->assemble(rows, part);
      batch.tokens.training = true;
      batch.tokens.random = {.seed = 5, .stream = 9};
      const Tensor loss = task->loss_sum(cx, *trunk, batch);
      sum += double{*loss.data<float>()};
      cx.tape = nullptr;
      tape.backward(cx, loss, Tensor::full(*rank.allocator, loss.shape(), 1 / labels));
    }
    reduce_gradients(rank, trunk->parameters());
    const double norm = global_gradient_norm(rank, trunk->parameters());
    Tensor total = Tensor::full(*rank.allocator, {1}, sum, DType::kF64);
    rank.mesh.axis(Axis::kReplica).all_reduce(total, ReduceOp::kSum);
    if (rank.mesh.index(Axis::kWorld) == 0) outcome = {*total.data<double>() / labels, norm};
  });
  return outcome;
}

TEST(Gpt2Model, WithDropoutEveryMeshComputesTheSame) {
  for (bool left : {false, true}) {
    const Outcome whole = outcome_on({}, left, 0);
    EXPECT_GT(whole.loss, 3.0);
    for (const MeshDegrees& mesh : meshes()) {
      for (int64_t micro_batch : {0, 1}) {
        const Outcome other = outcome_on(mesh, left, micro_batch);
        EXPECT_NEAR(other.loss / whole.loss, 1.0, 1e-5)
            << mesh.data << mesh.sequence << mesh.tensor << left;
        EXPECT_NEAR(other.norm / whole.norm, 1.0, 1e-5)
            << mesh.data << mesh.sequence << mesh.tensor << left;
      }
    }
  }
}

}  // namespace
}  // namespace weft
