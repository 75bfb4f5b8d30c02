// T5 computes the same on every mesh, with padding aside, and from its cache.
#include <gtest/gtest.h>

#include "kernels/tensor/transfer.h"
#include "tests/worker/models/family_fixture.h"
#include "worker/serve/generate.h"

namespace weft {
namespace {

constexpr const char* kTied = R"({"model_type": "t5", "vocab_size": 37, "d_model": 24, "d_kv": 5,
    "d_ff": 40, "num_heads": 5, "num_layers": 2, "num_decoder_layers": 3,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 6})";
constexpr const char* kGated = R"({"model_type": "t5", "vocab_size": 37, "d_model": 24, "d_kv": 5,
    "d_ff": 40, "num_heads": 5, "num_layers": 3, "num_decoder_layers": 1,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false})";

ModelConfigPtr config_of(const char* json) { return *find_family("t5")->parse_config(json); }

TaskRows rows_with_targets() {
  TaskRows rows = some_rows(5, 11, /*left=*/false);
  rows.target_tokens = 7;
  for (int64_t row = 0; row < rows.rows; ++row) {
    for (int64_t token = 0; token < rows.target_tokens; ++token) {
      const bool ended = token >= rows.target_tokens - row % 3;
      rows.labels.push_back(ended ? kNoLabel : (row * 11 + token * 5 + 2) % 37);
    }
  }
  return rows;
}

std::unique_ptr<Trunk> trunk_of(Rank& rank, const char* json) {
  auto trunk = *find_family("t5")->make_trunk(rank, config_of(json));
  initialize_parameters(trunk->parameters(), 17);
  return trunk;
}

// Loss and gradient norm, with dropout.
Outcome outcome_of(Rank& rank, const char* json, Recompute recompute, int64_t micro_batch) {
  const auto trunk = trunk_of(rank, json);
  const auto task = *make_task(rank, "seq2seq", trunk->config(), {.name = "task"});
  const TaskRows rows = rows_with_targets();
  const double labels = static_cast<double>(task->label_count(rows));
  double sum = 0;
  for (const Part& part : micro_batches(rank.mesh, rows.rows, micro_batch)) {
    Tape tape;
    Context cx = rank.context();
    cx.tape = &tape;
    TaskBatch batch = task->assemble(rows, part);
    batch.tokens.training = true;
    batch.tokens.recompute = recompute;
    batch.tokens.random = RandomKey{5};
    const Tensor loss = task->loss_sum(cx, *trunk, batch);
    sum += read_scalar(loss);
    cx.tape = nullptr;
    tape.backward(cx, loss, Tensor::full(*rank.allocator, loss.shape(), 1 / labels));
  }
  reduce_gradients(rank, trunk->parameters());
  Tensor whole = Tensor::full(*rank.allocator, {1}, sum, DType::kF64);
  rank.mesh.axis(Axis::kReplica).all_reduce(whole, ReduceOp::kSum);
  return {read_scalar(whole) / labels, global_gradient_norm(rank, trunk->parameters())};
}

Outcome on_mesh(MeshDegrees mesh, const char* json, Recompute recompute = Recompute::kNothing,
                int64_t micro_batch = 0) {
  Outcome first;
  testing::run_mesh(mesh, [&](Rank& rank) {
    const Outcome mine = outcome_of(rank, json, recompute, micro_batch);
    if (rank.mesh.index(Axis::kWorld) == 0) first = mine;
  });
  return first;
}

TEST(T5Model, ShardsCoverEachParameterOnce) {
  for (const char* json : {kTied, kGated}) {
    for (const int size : {1, 2, 3, 5, 6}) {
      expect_shards_cover_once(*find_family("t5"), *config_of(json), size);
    }
  }
}

TEST(T5Model, EveryMeshComputesTheSame) {
  for (const char* json : {kTied, kGated}) {
    const Outcome alone = on_mesh({}, json);
    EXPECT_GT(alone.norm, 0);
    const auto expect_same = [&](const Outcome& other, const std::string& where) {
      EXPECT_NEAR(other.loss, alone.loss, 1e-5 * alone.loss) << where;
      EXPECT_NEAR(other.norm, alone.norm, 2e-5 * alone.norm) << where;
    };
    std::vector<MeshDegrees> all = meshes();
    all.insert(all.end(), {{.sequence = 2, .ulysses = 2},
                           {.sequence = 4, .ulysses = 2},
                           {.sequence = 5, .ulysses = 5},
                           {.sequence = 8},  // more ranks than tokens of a target
                           {.sequence = 2, .tensor = 2, .ulysses = 2}});
    for (const MeshDegrees mesh : all) {
      expect_same(on_mesh(mesh, json), std::to_string(mesh.data) + "x" +
                                           std::to_string(mesh.sequence) + "x" +
                                           std::to_string(mesh.tensor));
    }
    for (const Recompute recompute : {Recompute::kAttention, Recompute::kBlock}) {
      expect_same(on_mesh({}, json, recompute), "computed again");
      expect_same(on_mesh({.data = 2, .tensor = 2}, json, recompute, 2), "on a mesh, in rounds");
      expect_same(on_mesh({.sequence = 2, .tensor = 2}, json, recompute, 2), "rows shared, too");
    }
  }
}

TEST(T5Model, LossDoesNotSeePadding) {
  testing::run_ranks(1, [](Rank& rank) {
    const auto trunk = trunk_of(rank, kTied);
    const auto task = *make_task(rank, "seq2seq", trunk->config(), {.name = "task"});
    const auto loss_of = [&](const TaskRows& rows) {
      Context cx = rank.context();
      return read_scalar(task->loss_sum(cx, *trunk, task->assemble(rows, {0, rows.rows})));
    };
    TaskRows rows = rows_with_targets();
    const double before = loss_of(rows);
    for (size_t i = 0; i < rows.ids.size(); ++i) rows.ids[i] += rows.valid[i] == 0 ? 1 : 0;
    EXPECT_EQ(loss_of(rows), before);
    rows.ids[0] += 1;
    EXPECT_NE(loss_of(rows), before);
  });
}

TEST(T5Model, GivesTheLogitsOfTheWholeFromItsCache) {
  testing::run_ranks(1, [](Rank& rank) {
    for (const char* json : {kTied, kGated}) {
      const auto trunk = trunk_of(rank, json);
      const auto task = *make_task(rank, "seq2seq", trunk->config(), {.name = "task"});
      TaskRows rows = some_rows(1, 9, false);
      rows.valid.clear();
      rows.labels = {3, 9, 27, 7, 21, 26, 4, 12};
      rows.target_tokens = std::ssize(rows.labels);
      const TaskBatch batch = task->assemble(rows, {0, 1});
      Context cx = rank.context();
      const std::vector<float> whole = task->logits(cx, *trunk, batch).to_vector<float>();
      const std::vector<int64_t> ids = batch.tokens.ids.to_vector<int64_t>();
      KeyValueCache cache;
      cache.capacity = kAnyLength;
      auto source = batch.tokens.source;
      for (size_t at = 0; const size_t piece : {3, 1, 1, 3}) {
        const std::vector<float> logits = next_logits(
            rank, *trunk, cache, std::span(ids).subspan(at, piece), std::exchange(source, nullptr));
        at += piece;
        for (size_t i = 0; i < 37; ++i) {
          ASSERT_NEAR(logits[i], whole[(at - 1) * 37 + i], 2e-5) << json << at << " " << i;
        }
      }
    }
  });
}

TEST(T5Model, HasOneTask) {
  testing::run_ranks(1, [](Rank& rank) {
    for (const char* type : {"causal_lm", "masked_lm", "sequence_classification", "embedding"}) {
      const auto made = make_task(rank, type, *config_of(kTied), {.name = "t", .labels = 2});
      ASSERT_FALSE(made) << type;
      EXPECT_EQ(made.error().rule(), "must be one that t5 learns: seq2seq");
    }
    const auto gpt2 = find_family("gpt2")->parse_config("{}");
    EXPECT_FALSE(make_task(rank, "seq2seq", **gpt2, {.name = "t"}));
  });
}

}  // namespace
}  // namespace weft
