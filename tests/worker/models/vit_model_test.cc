#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/worker/models/family_fixture.h"

namespace weft {
namespace {

const ModelFamily& family() { return *find_family("vit"); }

// 5 heads, 13 inner features, 10 tokens: nothing divides evenly.
ModelConfigPtr uneven(const std::string& more = "") {
  return *family().parse_config(R"({"hidden_size": 20, "num_attention_heads": 5,
      "num_hidden_layers": 2, "intermediate_size": 13, "initializer_range": 0.3, "image_size": 9,
      "patch_size": 3, "num_channels": 2, "hidden_dropout_prob": 0.2,
      "attention_probs_dropout_prob": 0.1)" +
                                more + "}");
}

TEST(Vit, ShardsCoverEachParameterOnce) {
  for (int size : {1, 2, 3, 5, 7}) expect_shards_cover_once(family(), *uneven(), size);
}

TEST(Vit, HalfPrecisionLeavesTheNormsInFp32) {
  for (const ParameterInfo& info : family().plan(*uneven(), 1, 0)) {
    EXPECT_EQ(info.keep_fp32, info.name.find("layernorm") != std::string::npos) << info.name;
  }
}

TEST(Vit, WithDropoutEveryMeshComputesTheSame) {
  expect_meshes_agree(family(), uneven(), {{.sequence = 2, .ulysses = 2}});
}

TEST(Vit, WithoutInputBiasesToo) {
  expect_meshes_agree(family(), uneven(R"(, "qkv_bias": false)"), {});
  for (const ParameterInfo& info : family().plan(*uneven(R"(, "qkv_bias": false)"), 1, 0)) {
    EXPECT_FALSE(info.name.ends_with("query.bias")) << info.name;
  }
}

TEST(Vit, WhatIsBehindTheAttentionIsOpenedBehindIt) {
  // inner and outer maps with their biases and the norm.
  expect_gates_open_before_use(family(), uneven(), 6);
}

TEST(Vit, PublishedNamesAreFound) {
  const auto has = [](const std::string& parameter, const std::string& name) {
    const std::vector<std::string> names = family().file_names(parameter);
    EXPECT_EQ(names.front(), parameter);
    EXPECT_NE(std::ranges::find(names, name), names.end()) << name;
  };
  has("vit.embeddings.cls_token", "embeddings.cls_token");
  has("vit.encoder.layer.3.output.dense.bias", "encoder.layer.3.output.dense.bias");
  has("vit.encoder.layer.3.output.dense.bias", "vit.layers.3.mlp.fc2.bias");
  has("vit.encoder.layer.3.intermediate.dense.weight", "layers.3.mlp.fc1.weight");
  has("vit.encoder.layer.0.attention.output.dense.bias", "vit.layers.0.attention.o_proj.bias");
  has("vit.encoder.layer.0.attention.attention.key.bias", "layers.0.attention.k_proj.bias");
  has("vit.encoder.layer.0.layernorm_after.bias", "vit.layers.0.layernorm_after.bias");
  for (const char* head : {"vit.pooler.dense.weight", "pooler.dense.bias", "decoder.0.weight",
                           "vit.embeddings.mask_token"}) {
    EXPECT_TRUE(family().ignored_in_files(head, *uneven())) << head;
  }
  EXPECT_FALSE(family().ignored_in_files("vit.layernorm.weight", *uneven()));
}

// The class token of an image depends on its patches and on no other image's.
TEST(Vit, AnImageIsClassifiedByItsPatches) {
  testing::run_ranks(1, [](Rank& rank) {
    const ModelConfigPtr config = uneven();
    auto trunk = *family().make_trunk(rank, config);
    initialize_parameters(trunk->parameters(), 17);
    const TestTask test(rank, *config);
    TaskRows rows = test.rows(3, 0, false);
    const auto logits = [&] {
      Context cx = rank.context();
      return test.task->logits(cx, *trunk, test.task->assemble(rows, {0, 3})).to_vector<float>();
    };
    const std::vector<float> before = logits();
    const size_t of_image = rows.patches.size() / 3;
    rows.patches[2 * of_image - 1] += 1;  // the last value of the second one
    const std::vector<float> after = logits();
    for (size_t i = 0; i < before.size(); ++i) {
      EXPECT_EQ(before[i] != after[i], i / 3 == 1) << i;
    }
  });
}

TEST(Vit, OtherTasksAreRefused) {
  testing::run_ranks(1, [](Rank& rank) {
    for (const char* type : {"causal_lm", "masked_lm", "sequence_classification",
                             "token_classification", "multiple_choice", "embedding"}) {
      const auto task = make_task(rank, type, *uneven(), {.name = "task", .labels = 3});
      ASSERT_FALSE(task) << type;
      EXPECT_EQ(task.error().field(), "tasks.task.type");
      EXPECT_NE(task.error().rule().find("image_classification"), std::string::npos) << type;
    }
    for (const char* text : {"gpt2", "llama", "bert", "roberta", "distilbert"}) {
      const auto config = find_family(text)->parse_config("{}");
      const auto task =
          make_task(rank, "image_classification", **config, {.name = "task", .labels = 3});
      ASSERT_FALSE(task) << text;
      EXPECT_NE(task.error().rule().find(text), std::string::npos) << task.error().to_string();
    }
    const auto few = make_task(rank, "image_classification", *uneven(), {.name = "t", .labels = 1});
    ASSERT_FALSE(few);
    EXPECT_EQ(few.error().field(), "tasks.t.labels");
  });
}

}  // namespace
}  // namespace weft
