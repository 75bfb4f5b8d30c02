#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/worker/models/family_fixture.h"

namespace weft {
namespace {

// 5 heads, 13 inner features, 37 tokens: nothing divides evenly.
constexpr const char* kUneven = R"({"hidden_size": 20, "num_attention_heads": 5, "vocab_size": 37,
    "max_position_embeddings": 14, "num_hidden_layers": 2, "initializer_range": 0.3, )";

ModelConfigPtr uneven(const ModelFamily& family) {
  const std::string own = family.name() == "distilbert"
                              ? R"("hidden_dim": 13, "dropout": 0.2})"
                              : R"("intermediate_size": 13, "type_vocab_size": 3})";
  return *family.parse_config(kUneven + own);
}

class Encoders : public ::testing::TestWithParam<const char*> {
 protected:
  const ModelFamily& family() const { return *find_family(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(All, Encoders, ::testing::Values("bert", "roberta", "distilbert"),
                         [](const auto& param) { return std::string(param.param); });

TEST_P(Encoders, ShardsCoverEachParameterOnce) {
  for (int size : {1, 2, 3, 5, 7}) expect_shards_cover_once(family(), *uneven(family()), size);
}

TEST_P(Encoders, HalfPrecisionLeavesTheNormsInFp32) {
  for (const ParameterInfo& info : family().plan(*uneven(family()), 1, 0)) {
    const bool norm = info.name.find("LayerNorm") != std::string::npos ||
                      info.name.find("layer_norm") != std::string::npos;
    EXPECT_EQ(info.keep_fp32, norm) << info.name;
  }
}

TEST_P(Encoders, WithDropoutEveryMeshComputesTheSame) {
  expect_meshes_agree(family(), uneven(family()), {{.sequence = 2, .ulysses = 2}});
}

TEST_P(Encoders, WhatIsBehindTheAttentionIsOpenedBehindIt) {
  // inner and outer maps with their biases and the norm.
  expect_gates_open_before_use(family(), uneven(family()), 6);
}

TEST_P(Encoders, PublishedNamesOfNormsAreFound) {
  const std::string norm = std::string(family().name()) + ".embeddings.LayerNorm";
  const std::vector<std::string> names = family().file_names(norm + ".weight");
  EXPECT_EQ(names.front(), norm + ".weight");
  for (const char* name : {"embeddings.LayerNorm.weight", "embeddings.LayerNorm.gamma"}) {
    EXPECT_NE(std::ranges::find(names, name), names.end()) << name;
  }
  EXPECT_NE(std::ranges::find(names, norm + ".gamma"), names.end());
}

}  // namespace
}  // namespace weft
