// Every key of T5's configuration is honoured or refused by name, and distances are in the buckets
// in which transformers has them.
#include "worker/models/t5_config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "worker/models/t5_plan.h"

namespace weft {
namespace {

const ModelFamily& t5_family() { return *find_family("t5"); }

std::shared_ptr<const t5::Config> read_t5(const std::string& json) {
  const auto config = t5::parse_config(json);
  if (!config) throw StatusError(config.error());
  return *config;
}

Status refused_by_t5(const std::string& json) {
  const auto config = t5_family().parse_config(json);
  return config ? Status() : config.error();
}

TEST(T5Config, AbsentKeysAreTransformersDefaults) {
  const auto config = read_t5("{}");
  EXPECT_EQ(config->vocabulary, 32128);
  EXPECT_EQ(config->hidden, 512);
  EXPECT_EQ(config->head_features, 64);
  EXPECT_EQ(config->heads, 8);
  EXPECT_EQ(config->inner, 2048);
  EXPECT_EQ(config->encoder_layers, 6);
  EXPECT_EQ(config->decoder_layers(), 6);
  EXPECT_EQ(config->buckets, 32);
  EXPECT_EQ(config->distances, 128);
  EXPECT_EQ(config->activation, ops::Activation::kRelu);
  EXPECT_FALSE(config->gated);
  EXPECT_EQ(config->dropout, 0.1);
  EXPECT_EQ(config->epsilon, 1e-6);
  EXPECT_TRUE(config->tied);
  EXPECT_DOUBLE_EQ(config->logit_scale, 1 / std::sqrt(512.0));
  EXPECT_EQ(config->pad_token_id, 0);
  EXPECT_EQ(config->eos_token_ids, std::vector<int64_t>{1});
  EXPECT_EQ(config->decoder_start_token_id, 0);
  EXPECT_EQ(config->tokens_max(), kAnyLength);
  EXPECT_FALSE(config->attention.causal);
  EXPECT_TRUE(config->other_attention.causal);
  EXPECT_EQ(config->unit_of(5), 6);
  EXPECT_EQ(config->unit_of(6), 8) << "the encoder's norm lies between";
  EXPECT_EQ(config->last_unit(), 14);
}

TEST(T5Config, KeysAreHonoured) {
  const auto config = read_t5(R"({"vocab_size": 99, "d_model": 20, "d_kv": 3, "d_ff": 7,
      "num_heads": 5, "num_layers": 2, "num_decoder_layers": 3, "feed_forward_proj": "gated-gelu",
      "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
      "dropout_rate": 0.25, "layer_norm_epsilon": 0.001, "initializer_factor": 0.5,
      "tie_word_embeddings": false, "pad_token_id": 4, "eos_token_id": 5,
      "n_positions": 512, "is_encoder_decoder": true})");
  EXPECT_EQ(config->heads * config->head_features, 15) << "not d_model";
  EXPECT_EQ(config->encoder_layers, 2);
  EXPECT_EQ(config->layers, 5);
  EXPECT_EQ(config->other_layers, 3);
  EXPECT_TRUE(config->gated);
  EXPECT_EQ(config->activation, ops::Activation::kGeluTanh) << "gelu_new";
  EXPECT_FALSE(config->tied);
  EXPECT_EQ(config->logit_scale, 1);
  EXPECT_EQ(config->decoder_start_token_id, 4) << "pad_token_id";
  EXPECT_EQ(read_t5(R"({"feed_forward_proj": "gelu"})")->activation, ops::Activation::kGeluErf);
  EXPECT_EQ(read_t5(R"({"feed_forward_proj": "gated-silu"})")->activation_name, "silu");
  EXPECT_EQ(read_t5(R"({"num_hidden_layers": 4})")->decoder_layers(), 4);
  // As transformers 5 writes a model whose head is its own.
  const auto own = read_t5(R"({"tie_word_embeddings": true, "scale_decoder_outputs": false})");
  EXPECT_FALSE(own->tied);
  EXPECT_EQ(own->untied_by, "scale_decoder_outputs");
  EXPECT_EQ(read_t5(R"({"tie_word_embeddings": false})")->untied_by, "tie_word_embeddings");
}

TEST(T5Config, WhatItCannotComputeIsRefused) {
  const std::pair<const char*, const char*> wrong[] = {
      {R"({"is_encoder_decoder": false})", "is_encoder_decoder"},
      {R"({"is_decoder": true})", "is_decoder"},
      {R"({"feed_forward_proj": "gated-mish"})", "feed_forward_proj"},
      {R"({"feed_forward_proj": "gated-gelu", "is_gated_act": false})", "is_gated_act"},
      {R"({"dense_act_fn": "gelu_new"})", "dense_act_fn"},
      {R"({"relative_attention_num_buckets": 3})", "relative_attention_num_buckets"},
      {R"({"relative_attention_max_distance": 16})", "relative_attention_max_distance"},
      {R"({"num_decoder_layers": 0})", "num_decoder_layers"},
      {R"({"decoder_start_token_id": 32128})", "decoder_start_token_id"},
      {R"({"tie_word_embeddings": false, "scale_decoder_outputs": true})", "scale_decoder_outputs"},
      {R"({"max_position_embeddings": 512})", "max_position_embeddings"},
      {R"({"dropout_rate": 1})", "dropout_rate"},
  };
  for (const auto& [json, field] : wrong) EXPECT_EQ(refused_by_t5(json).field(), field) << json;
}

TEST(T5Config, IsWrittenAsItWasRead) {
  for (const char* text : {"{}", R"({"feed_forward_proj": "gated-gelu", "num_layers": 3,
           "num_decoder_layers": 2, "tie_word_embeddings": false, "decoder_start_token_id": 7})",
                           R"({"feed_forward_proj": "gelu_new", "initializer_factor": 2})",
                           R"({"pad_token_id": null, "decoder_start_token_id": null})"}) {
    const auto config = read_t5(text);
    const std::string written = t5_family().config_json(*config, {});
    EXPECT_EQ(t5_family().config_json(*read_t5(written), {}), written);
    const auto json = nlohmann::json::parse(written);
    EXPECT_EQ(json["architectures"][0], "T5ForConditionalGeneration");
    EXPECT_EQ(json["is_encoder_decoder"], true);
  }
}

// Where the byte tokenizer's end of a text is another than the model's, too.
TEST(T5Config, TokensThatItHasNotAreWrittenAsNull) {
  const ExportHead head{.end_of_text = 256};
  const auto written = [&](const char* json) {
    return nlohmann::json::parse(t5_family().config_json(*read_t5(json), head));
  };
  const nlohmann::json none = written(R"({"pad_token_id": null, "decoder_start_token_id": null})");
  EXPECT_TRUE(none.at("pad_token_id").is_null());
  EXPECT_TRUE(none.at("decoder_start_token_id").is_null());
  EXPECT_EQ(none["eos_token_id"], 256);
  const nlohmann::json left_out = written("{}");
  EXPECT_EQ(left_out["pad_token_id"], 0);
  EXPECT_EQ(left_out["decoder_start_token_id"], 0) << "without it transformers writes nothing";
  EXPECT_EQ(
      read_t5(R"({"pad_token_id": null, "decoder_start_token_id": null})")->decoder_start_token_id,
      0);
}

// Values and how often each follows itself, of T5Attention._relative_position_bucket.
using Runs = std::vector<std::pair<int64_t, int>>;
std::vector<int64_t> spread(const Runs& runs) {
  std::vector<int64_t> all;
  for (const auto& [value, count] : runs) all.insert(all.end(), static_cast<size_t>(count), value);
  return all;
}

TEST(T5Config, DistancesAreInTransformersBuckets) {
  const auto usual = read_t5("{}");
  EXPECT_EQ(usual->bucket_of_distance(false),
            spread({{15, 38}, {14, 27}, {13, 18}, {12, 14}, {11, 9},  {10, 7},  {9, 4},  {8, 4},
                    {7, 1},   {6, 1},   {5, 1},   {4, 1},   {3, 1},   {2, 1},   {1, 1},  {0, 1},
                    {17, 1},  {18, 1},  {19, 1},  {20, 1},  {21, 1},  {22, 1},  {23, 1}, {24, 4},
                    {25, 4},  {26, 7},  {27, 9},  {28, 14}, {29, 18}, {30, 27}, {31, 38}}));
  EXPECT_EQ(usual->bucket_of_distance(true),
            spread({{31, 16}, {30, 14}, {29, 12}, {28, 10}, {27, 10}, {26, 8}, {25, 7}, {24, 6},
                    {23, 6},  {22, 5},  {21, 4},  {20, 4},  {19, 3},  {18, 3}, {17, 2}, {16, 3},
                    {15, 1},  {14, 1},  {13, 1},  {12, 1},  {11, 1},  {10, 1}, {9, 1},  {8, 1},
                    {7, 1},   {6, 1},   {5, 1},   {4, 1},   {3, 1},   {2, 1},  {1, 1},  {0, 129}}));
  const auto few =
      read_t5(R"({"relative_attention_num_buckets": 6, "relative_attention_max_distance": 17})");
  EXPECT_EQ(few->bucket_of_distance(false), spread({{2, 13}, {1, 4}, {0, 1}, {4, 4}, {5, 13}}));
  EXPECT_EQ(few->bucket_of_distance(true),
            spread({{5, 8}, {4, 4}, {3, 3}, {2, 1}, {1, 1}, {0, 18}}));
}

TEST(T5Plan, BeginsAsTransformersDoes) {
  const auto config = read_t5(
      R"({"vocab_size": 99, "d_model": 20, "d_kv": 3, "d_ff": 7, "num_heads": 5, "num_layers": 1,
          "initializer_factor": 0.5, "tie_word_embeddings": false})");
  std::map<std::string, double> deviations;
  for (const ParameterInfo& info : t5_family().plan(*config, 1, 0)) {
    deviations[info.name] = info.deviation;
  }
  const auto of = [](double count) { return 0.5 / std::sqrt(count); };
  const std::string self = "decoder.block.0.layer.0.SelfAttention.";
  EXPECT_DOUBLE_EQ(deviations.at("shared.weight"), 0.5);
  EXPECT_DOUBLE_EQ(deviations.at("lm_head.weight"), 0.5);
  EXPECT_DOUBLE_EQ(deviations.at("encoder.final_layer_norm.weight"), 0.5) << "of all of them";
  EXPECT_DOUBLE_EQ(deviations.at(self + "q.weight"), of(20 * 3));
  EXPECT_DOUBLE_EQ(deviations.at(self + "k.weight"), of(20));
  EXPECT_DOUBLE_EQ(deviations.at(self + "o.weight"), of(15));
  EXPECT_DOUBLE_EQ(deviations.at(self + "relative_attention_bias.weight"), of(20));
  EXPECT_DOUBLE_EQ(deviations.at("decoder.block.0.layer.2.DenseReluDense.wo.weight"), of(7));
}

}  // namespace
}  // namespace weft
