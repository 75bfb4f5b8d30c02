#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "tests/worker/models/family_fixture.h"

namespace weft {
namespace {

// Six heads read two of keys; 13 inner features and 37 tokens divide by nothing.
constexpr const char* kGrouped = R"({"hidden_size": 20, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 4, "intermediate_size": 13, "vocab_size": 37,
    "max_position_embeddings": 11, "num_hidden_layers": 2, "attention_dropout": 0.1,
    "initializer_range": 0.3, "pad_token_id": 3})";

const ModelFamily& family() { return *find_family("llama"); }
ModelConfigPtr grouped() { return *family().parse_config(kGrouped); }

TEST(LlamaPlan, ShardsCoverEachParameterOnce) {
  for (int size : {1, 2, 3, 4, 5, 6, 7}) expect_shards_cover_once(family(), *grouped(), size);
}

TEST(LlamaPlan, HalfPrecisionLeavesTheNormsInFp32) {
  for (const ParameterInfo& info : family().plan(*grouped(), 1, 0)) {
    EXPECT_EQ(info.keep_fp32, info.name.find("norm") != std::string::npos) << info.name;
  }
}

TEST(LlamaModel, WhatIsBehindTheAttentionIsOpenedBehindIt) {
  expect_gates_open_before_use(family(), grouped(), 4);  // the norm, gate, up, down
}

TEST(LlamaPlan, RanksThatShareAHeadOfKeysHoldAllOfIt) {
  std::map<std::string, std::vector<Shard>> shards;
  for (int index = 0; index < 4; ++index) {
    for (const ParameterInfo& info : family().plan(*grouped(), 4, index)) {
      shards[info.name].push_back(info.shard);
    }
  }
  const auto& keys = shards.at("model.layers.0.self_attn.k_proj.weight");
  for (size_t rank = 0; rank < keys.size(); ++rank) {
    const Part head{rank < 2 ? 0 : 4, 4};
    EXPECT_EQ(keys[rank].ranges, std::vector<Part>{head});
    EXPECT_EQ(keys[rank].copies, 2);
    EXPECT_EQ(keys[rank].copy, static_cast<int>(rank) % 2);
  }
  for (const Shard& shard : shards.at("model.layers.0.self_attn.q_proj.weight")) {
    EXPECT_EQ(shard.copies, 1);
  }
}

// In blocks ranks have even parts of the heads of queries, and all heads of keys that these read.
TEST(LlamaPlan, InBlocksRanksHoldTheHeadsOfKeysThatTheirsRead) {
  const ModelConfigPtr config = *family().parse_config(R"({"hidden_size": 16,
      "num_attention_heads": 12, "num_key_value_heads": 3, "head_dim": 8, "intermediate_size": 16,
      "vocab_size": 37, "num_hidden_layers": 2})");
  for (int size : {1, 2, 4}) expect_shards_cover_once(family(), *config, size, 8);
  for (int size : {1, 2}) expect_shards_cover_once(family(), *grouped(), size, 8);
  const std::vector<Part> held = {{0, 8}, {0, 16}, {8, 16}, {16, 8}};
  const std::vector<int64_t> repeated = {0, 8, 8, 8};
  for (int index = 0; index < 4; ++index) {
    for (const ParameterInfo& info : family().plan(*config, 4, index, 8)) {
      if (info.name.ends_with("q_proj.weight")) {
        EXPECT_EQ(info.shard.ranges, std::vector<Part>({{24 * index, 24}}));
      }
      if (!info.name.ends_with("k_proj.weight") && !info.name.ends_with("v_proj.weight")) continue;
      EXPECT_EQ(info.shard.ranges, std::vector<Part>{held[static_cast<size_t>(index)]});
      EXPECT_EQ(info.shard.repeated, repeated[static_cast<size_t>(index)]);
      EXPECT_EQ(info.shard.cell, 8);
    }
  }
}

TEST(LlamaModel, WithDropoutEveryMeshComputesTheSame) {
  expect_meshes_agree(family(), grouped(),
                      {{.tensor = 4},
                       {.tensor = 7},
                       {.sequence = 2, .tensor = 4},
                       {.data = 2, .tensor = 3},
                       {.sequence = 2, .ulysses = 2},
                       {.sequence = 2, .tensor = 4, .ulysses = 2}});
}

// Ranks that hold a head of keys start alike and get the same gradient, to the bit.
TEST(LlamaModel, CopiesOfAHeadStayTheSame) {
  testing::run_mesh({.data = 2, .tensor = 4}, [&](Rank& rank) {
    auto trunk = *family().make_trunk(rank, grouped());
    initialize_parameters(trunk->parameters(), 17);
    auto task = *make_task(rank, "causal_lm", trunk->config(), {.name = "lm"});
    Tape tape;
    Context cx = rank.context();
    cx.tape = &tape;
    const TaskRows rows = some_rows(4, 11, false);
    const Tensor loss = task->loss_sum(cx, *trunk, task->assemble(rows, {0, 4}));
    cx.tape = nullptr;
    tape.backward(cx, loss, Tensor::full(*rank.allocator, loss.shape(), 1.0));
    reduce_gradients(rank, trunk->parameters());
    for (const Parameter& parameter : trunk->parameters()) {
      if (parameter.info.shard.copies == 1) continue;
      for (const Tensor& tensor : {parameter.value, parameter.value.grad()}) {
        Tensor first =
            Tensor::from<float>(*rank.allocator, tensor.shape(), tensor.to_vector<float>());
        rank.mesh.axis(Axis::kKeyHeads).broadcast(first, 0);
        EXPECT_EQ(first.to_vector<float>(), tensor.to_vector<float>()) << parameter.info.name;
      }
    }
    EXPECT_EQ(std::ranges::count_if(trunk->parameters(),
                                    [](const Parameter& p) { return p.info.shard.copies == 2; }),
              4);
  });
}

}  // namespace
}  // namespace weft
