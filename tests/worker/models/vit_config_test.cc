// Every key of ViT's configuration is honoured or refused by name.
#include "worker/models/vit_config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace weft {
namespace {

const ModelFamily& family() { return *find_family("vit"); }

std::shared_ptr<const vit::Config> read(const std::string& json) {
  const auto config = vit::parse_config(json);
  if (!config) throw StatusError(config.error());
  return *config;
}

Status refused(const std::string& json) {
  const auto config = family().parse_config(json);
  return config ? Status() : config.error();
}

TEST(VitConfig, AbsentKeysAreTransformersDefaults) {
  const auto config = read("{}");
  EXPECT_EQ(config->hidden, 768);
  EXPECT_EQ(config->layers, 12);
  EXPECT_EQ(config->heads, 12);
  EXPECT_EQ(config->inner, 3072);
  EXPECT_EQ(config->image.size, 224);
  EXPECT_EQ(config->image.patch, 16);
  EXPECT_EQ(config->image.channels, 3);
  EXPECT_EQ(config->image.tokens(), 197);
  EXPECT_EQ(config->tokens_max(), 197);
  EXPECT_EQ(config->vocabulary, 0);
  EXPECT_EQ(config->activation, ops::Activation::kGeluErf);
  EXPECT_EQ(config->dropout, 0);
  EXPECT_EQ(config->attention_dropout, 0);
  EXPECT_EQ(config->epsilon, 1e-12);
  EXPECT_TRUE(config->input_biases);
  EXPECT_FALSE(config->attention.causal);
  EXPECT_EQ(config->pooler_features, 768);
}

TEST(VitConfig, KeysAreHonoured) {
  const auto config = read(R"({"hidden_size": 6, "num_attention_heads": 3, "num_hidden_layers": 2,
      "intermediate_size": 7, "hidden_act": "relu", "hidden_dropout_prob": 0.25,
      "attention_probs_dropout_prob": 0.5, "layer_norm_eps": 0.001, "qkv_bias": false,
      "image_size": 20, "patch_size": 5, "num_channels": 1, "initializer_range": 0.1})");
  EXPECT_EQ(config->head_features, 2);
  EXPECT_EQ(config->inner, 7);
  EXPECT_EQ(config->activation, ops::Activation::kRelu);
  EXPECT_EQ(config->dropout, 0.25);
  EXPECT_EQ(config->attention_dropout, 0.5);
  EXPECT_EQ(config->epsilon, 0.001);
  EXPECT_FALSE(config->input_biases);
  EXPECT_EQ(config->positions, 17);
  EXPECT_EQ(config->image.values(), 25);
  EXPECT_EQ(read(R"({"image_size": [32, 32], "patch_size": [8, 8]})")->image.tokens(), 17);
}

TEST(VitConfig, RefusalsNameTheKeyAndTheRule) {
  for (const char* key : {"image_size", "patch_size"}) {
    for (const char* value : {"[32, 16]", "[32]", "[32, 32, 32]", "[1.5, 1.5]", "[0, 0]", "0", "-4",
                              "\"32\"", "null", "16385"}) {
      const Status status = refused("{\"" + std::string(key) + "\": " + value + "}");
      EXPECT_EQ(status.field(), key) << value;
    }
  }
  EXPECT_EQ(refused(R"({"image_size": 30, "patch_size": 16})").field(), "patch_size");
  EXPECT_NE(refused(R"({"image_size": 30, "patch_size": 16})").rule().find("30"),
            std::string::npos);
  EXPECT_EQ(refused(R"({"image_size": 8, "patch_size": 16})").field(), "patch_size");
  EXPECT_EQ(refused(R"({"num_channels": 0})").field(), "num_channels");
  EXPECT_EQ(refused(R"({"num_attention_heads": 7})").field(), "num_attention_heads");
  EXPECT_EQ(refused(R"({"hidden_act": "gelu_10"})").field(), "hidden_act");
  EXPECT_EQ(refused(R"({"problem_type": "regression"})").field(), "problem_type");
  EXPECT_EQ(refused(R"({"vocab_size": 7})").field(), "vocab_size");
  EXPECT_EQ(refused(R"({"encoder_stride": 0})").field(), "encoder_stride");
}

TEST(VitConfig, IsWrittenAsTransformersDoes) {
  const std::string given = R"({"image_size": 20, "patch_size": 5, "encoder_stride": 5,
      "hidden_size": 12, "num_attention_heads": 3, "pooler_output_size": 9, "pooler_act": "relu",
      "qkv_bias": false})";
  ExportHead head{.labels = 2, .classes = HeadKind::kImage, .label_names = {"cat", "dog"}};
  const std::string text = family().config_json(*read(given), head);
  const nlohmann::json json = nlohmann::json::parse(text);
  EXPECT_EQ(json["architectures"], nlohmann::json::array({"ViTForImageClassification"}));
  EXPECT_EQ(json["id2label"]["1"], "dog");
  EXPECT_EQ(json["problem_type"], "single_label_classification");
  EXPECT_EQ(json["encoder_stride"], 5);
  EXPECT_EQ(json["pooler_output_size"], 9);
  EXPECT_EQ(json["pooler_act"], "relu");
  EXPECT_FALSE(json.contains("vocab_size"));
  EXPECT_FALSE(json.contains("pad_token_id"));
  EXPECT_EQ(family().config_json(*read(text), head), text);
  const nlohmann::json alone = nlohmann::json::parse(family().config_json(*read("{}"), {}));
  EXPECT_EQ(alone["architectures"], nlohmann::json::array({"ViTModel"}));
}

// As google/vit-base-patch16-224 and google/vit-base-patch16-224-in21k have them.
TEST(VitConfig, PublishedFilesAreRead) {
  EXPECT_TRUE(refused(R"({"_name_or_path": "google/vit", "architectures": ["ViTModel"],
      "attention_probs_dropout_prob": 0.0, "encoder_stride": 16, "hidden_act": "gelu",
      "hidden_dropout_prob": 0.0, "hidden_size": 768, "image_size": 224, "initializer_range": 0.02,
      "intermediate_size": 3072, "layer_norm_eps": 1e-12, "model_type": "vit",
      "num_attention_heads": 12, "num_channels": 3, "num_hidden_layers": 12, "patch_size": 16,
      "qkv_bias": true, "transformers_version": "4.13.0.dev0", "torch_dtype": "float32",
      "id2label": {"0": "tench", "1": "goldfish"}, "label2id": {"tench": 0, "goldfish": 1}})")
                  .ok());
}

}  // namespace
}  // namespace weft
