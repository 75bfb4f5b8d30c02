// Every key of a GPT-2 configuration is honoured or refused by name.
#include <google/protobuf/struct.pb.h>
#include <gtest/gtest.h>

#include "worker/models/gpt2_config.h"

namespace weft {
namespace {

const ModelFamily& family() { return *find_family("gpt2"); }

std::string refused_field(const std::string& json) {
  const Result<ModelConfigPtr> config = family().parse_config(json);
  return config ? "accepted" : config.error().field();
}

TEST(Gpt2Config, AbsentKeysAreTransformersDefaults) {
  const auto config = gpt2::parse_config("{}");
  ASSERT_TRUE(config) << config.error().to_string();
  const gpt2::Config& c = **config;
  EXPECT_EQ(c.vocabulary, 50257);
  EXPECT_EQ(c.positions, 1024);
  EXPECT_EQ(c.hidden, 768);
  EXPECT_EQ(c.layers, 12);
  EXPECT_EQ(c.heads, 12);
  EXPECT_EQ(c.inner, 3072);
  EXPECT_EQ(c.eos_token_ids, std::vector<int64_t>{50256});
  EXPECT_FALSE(c.pad_token_id);
  EXPECT_TRUE(c.tied);
  EXPECT_EQ(c.residual_dropout, 0.1);
  EXPECT_EQ(c.activation, ops::Activation::kGeluTanh);
  EXPECT_NEAR(c.score_scale(3), 1 / 8.0, 1e-15);
}

TEST(Gpt2Config, KeysAreHonoured) {
  const auto config = gpt2::parse_config(R"({"n_embd": 6, "num_attention_heads": 3, "n_inner": 7,
      "activation_function": "relu", "resid_pdrop": 0.25, "embd_pdrop": 0, "attn_pdrop": 0.5,
      "layer_norm_epsilon": 0.001, "scale_attn_weights": false, "eos_token_id": null,
      "scale_attn_by_inverse_layer_idx": true, "tie_word_embeddings": false, "vocab_size": 11,
      "n_positions": 9, "n_layer": 2, "pad_token_id": 4, "reorder_and_upcast_attn": true})");
  ASSERT_TRUE(config) << config.error().to_string();
  const gpt2::Config& c = **config;
  EXPECT_EQ(c.heads, 3);
  EXPECT_EQ(c.inner, 7);
  EXPECT_EQ(c.activation, ops::Activation::kRelu);
  EXPECT_EQ(c.residual_dropout, 0.25);
  EXPECT_EQ(c.attention_dropout, 0.5);
  EXPECT_EQ(c.epsilon, 0.001);
  EXPECT_FALSE(c.tied);
  EXPECT_TRUE(c.eos_token_ids.empty());
  EXPECT_EQ(c.pad_token_id, 4);
  EXPECT_NEAR(c.score_scale(1), 0.5, 1e-15);
}

TEST(Gpt2Config, RefusalsNameTheKey) {
  EXPECT_EQ(refused_field(R"({"n_embed": 6})"), "n_embed");
  EXPECT_EQ(refused_field(R"({"add_cross_attention": true})"), "add_cross_attention");
  EXPECT_EQ(refused_field(R"({"model_type": "bert"})"), "model_type");
  EXPECT_EQ(refused_field(R"({"activation_function": "mish"})"), "activation_function");
  EXPECT_EQ(refused_field(R"({"n_head": 5})"), "n_head");
  EXPECT_EQ(refused_field(R"({"n_layer": 0})"), "n_layer");
  EXPECT_EQ(refused_field(R"({"n_layer": 2.5})"), "n_layer");
  EXPECT_EQ(refused_field(R"({"n_embd": 1073741824, "n_head": 1, "n_layer": 100000})"), "n_embd");
  EXPECT_EQ(refused_field(R"({"n_layer": "2"})"), "n_layer");
  EXPECT_EQ(refused_field(R"({"vocab_size": 18446744073709551615})"), "vocab_size");
  EXPECT_EQ(refused_field(R"({"n_inner": -3})"), "n_inner");
  EXPECT_EQ(refused_field(R"({"attn_pdrop": 1.0})"), "attn_pdrop");
  EXPECT_EQ(refused_field(R"({"n_embd": 24, "hidden_size": 48})"), "hidden_size");
  EXPECT_EQ(refused_field(R"({"quantization_config": {"bits": 4}})"), "quantization_config");
  EXPECT_EQ(refused_field(R"({"pruned_heads": {"1": [0]}})"), "pruned_heads");
  EXPECT_EQ(refused_field(R"({"problem_type": "regression"})"), "problem_type");
  EXPECT_EQ(refused_field(R"({"torch_dtype": "int8"})"), "torch_dtype");
  EXPECT_EQ(refused_field(R"({"use_cache": true, "pruned_heads": {}, "summary_type": "mean"})"),
            "accepted");
  EXPECT_EQ(refused_field(R"({"n_special": 0, "predict_special_tokens": true})"), "accepted");
  EXPECT_FALSE(family().parse_config("[1]"));
  EXPECT_FALSE(family().parse_config("{"));
  EXPECT_FALSE(family().parse_config(R"({"n_layer": 1, "n_layer": 2})"));
}

TEST(Gpt2Config, TokenIdsAreOfTheVocabulary) {
  EXPECT_EQ(refused_field(R"({"bos_token_id": 50257})"), "bos_token_id");
  EXPECT_EQ(refused_field(R"({"vocab_size": 11, "eos_token_id": 11})"), "eos_token_id");
  EXPECT_EQ(refused_field(R"({"vocab_size": 11, "pad_token_id": 11})"), "pad_token_id");
  // transformers writes 50256 beside a vocabulary of any size.
  const auto config = gpt2::parse_config(R"({"vocab_size": 11, "bos_token_id": 50256,
      "eos_token_id": 50256, "pad_token_id": 50256})");
  ASSERT_TRUE(config) << config.error().to_string();
  EXPECT_FALSE((*config)->bos_token_id);
  EXPECT_TRUE((*config)->eos_token_ids.empty());
  EXPECT_FALSE((*config)->pad_token_id);
}

TEST(Gpt2Config, WhatIsWrittenReadsBackTheSame) {
  const auto config = family().parse_config(R"({"n_embd": 6, "n_head": 3, "n_inner": 7,
      "activation_function": "silu", "attn_pdrop": 0.5, "vocab_size": 11, "pad_token_id": 4,
      "scale_attn_by_inverse_layer_idx": true, "tie_word_embeddings": false})");
  ASSERT_TRUE(config);
  const std::string text = family().config_json(**config, {.labels = 2, .label_names = {"a", "b"}});
  EXPECT_NE(text.find("GPT2ForSequenceClassification"), std::string::npos);
  EXPECT_NE(text.find("\"1\": \"b\""), std::string::npos);
  const auto again = family().parse_config(text);
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(family().config_json(**again, {}), family().config_json(**config, {}));
}

TEST(Gpt2Config, PassesThroughAStruct) {
  const auto config = json_to_struct(R"({"n_embd": 6, "n_head": 3, "layer_norm_epsilon": 1e-05})");
  ASSERT_TRUE(config);
  const auto parsed = family().parse_config(struct_to_json(*config));
  ASSERT_TRUE(parsed) << parsed.error().to_string();
  EXPECT_EQ((*parsed)->hidden, 6);
}

TEST(Gpt2Config, DropoutCanBeOverridden) {
  const auto config = gpt2::parse_config("{}");
  const ModelConfigPtr other = family().with_dropout(**config, 0.0);
  EXPECT_NE(family().config_json(*other, {}).find("\"attn_pdrop\": 0.0"), std::string::npos);
}

TEST(Families, AreFoundByName) {
  EXPECT_EQ(find_family("nothing"), nullptr);
  const auto name = family_of_config(R"({"model_type": "gpt2"})");
  ASSERT_TRUE(name);
  EXPECT_EQ(*name, "gpt2");
  const auto other = family_of_config(R"({"model_type": "mamba"})");
  ASSERT_FALSE(other);
  EXPECT_NE(other.error().to_string().find("gpt2"), std::string::npos);
}

}  // namespace
}  // namespace weft
