#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "tests/testing/rank_runner.h"
#include "tests/worker/models/family_fixture.h"

namespace weft {
namespace {

// 5 heads, 13 inner features, 37 tokens, 11 positions: nothing divides evenly.
constexpr const char* kUneven = R"({"n_embd": 20, "n_head": 5, "n_inner": 13, "vocab_size": 37,
    "n_positions": 11, "n_layer": 2, "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1,
    "initializer_range": 0.3, "tie_word_embeddings": false,
    "scale_attn_by_inverse_layer_idx": true})";

const ModelFamily& family() { return *find_family("gpt2"); }
ModelConfigPtr uneven() { return *family().parse_config(kUneven); }

TEST(Gpt2Plan, ShardsCoverEachParameterOnce) {
  for (int size : {1, 2, 3, 5}) expect_shards_cover_once(family(), *uneven(), size);
}

TEST(Gpt2Plan, HalfPrecisionLeavesTheNormsInFp32) {
  for (const ParameterInfo& info : family().plan(*uneven(), 1, 0)) {
    EXPECT_EQ(info.keep_fp32, info.name.find(".ln_") != std::string::npos) << info.name;
  }
}

TEST(Gpt2Model, WhatIsBehindTheAttentionIsOpenedBehindIt) {
  expect_gates_open_before_use(family(), uneven(), 6);  // ln_2, c_fc and c_proj, each with a bias
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

// Columns of a matrix, and of those what a rank owns.
TEST(Gpt2Model, StartsFromTheSameWeightsWithAnyThreads) {
  constexpr int64_t kRows = 100, kColumns = 300;
  ParameterInfo whole;
  whole.name = "matrix";
  whole.shape = {kRows, kColumns};
  whole.initializer = Initializer::kNormal;
  whole.deviation = 0.3;
  ParameterInfo cut = whole;
  cut.shard = {1, {{20, 100}, {150, 80}}};
  const Part own{1000, 16500};
  const auto values = [&](int threads, const ParameterInfo& info, Part part) {
    ThreadPool pool(threads);
    std::vector<float> drawn(static_cast<size_t>(part.length));
    initialize_values(pool, info, part, drawn.data(), 17);
    return drawn;
  };
  const std::vector<float> all = values(1, whole, {0, kRows * kColumns});
  EXPECT_EQ(values(3, whole, {0, kRows * kColumns}), all);
  const std::vector<float> owned = values(4, cut, own);
  for_each_shard_run(cut, [&](int64_t local, int64_t global, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = local + i - own.start;
      if (at < 0 || at >= own.length) continue;
      ASSERT_EQ(owned[static_cast<size_t>(at)], all[static_cast<size_t>(global + i)]) << at;
    }
  });
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

TEST(Gpt2Model, WithDropoutEveryMeshComputesTheSame) {
  expect_meshes_agree(family(), uneven(), {});
}

}  // namespace
}  // namespace weft
