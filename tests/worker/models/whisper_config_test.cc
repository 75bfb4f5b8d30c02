// Every key of Whisper's configuration is honoured or refused by name.
#include "worker/models/whisper_config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "worker/models/learned_tasks.h"

namespace weft {
namespace {

const ModelFamily& whisper_family() { return *find_family("whisper"); }

std::shared_ptr<const whisper::Config> read_whisper(const std::string& json) {
  const auto config = whisper::parse_config(json);
  if (!config) throw StatusError(config.error());
  return *config;
}

TEST(WhisperConfig, AbsentKeysAreTransformersDefaults) {
  const auto config = read_whisper("{}");
  EXPECT_EQ(config->vocabulary, 51865);
  EXPECT_EQ(config->hidden, 384);
  EXPECT_EQ(config->heads, 6);
  EXPECT_EQ(config->head_features, 64);
  EXPECT_EQ(config->inner, 1536);
  EXPECT_EQ(config->encoder_layers, 4);
  EXPECT_EQ(config->decoder_layers(), 4);
  EXPECT_EQ(config->audio.mel_bins, 80);
  EXPECT_EQ(config->audio.tokens, 1500);
  EXPECT_EQ(config->audio.frames(), 3000);
  EXPECT_EQ(config->tokens_max(), 1500);
  EXPECT_EQ(config->target_positions, 448);
  EXPECT_EQ(config->activation, ops::Activation::kGeluErf);
  EXPECT_EQ(config->dropout + config->attention_dropout + config->activation_dropout, 0);
  EXPECT_TRUE(config->tied);
  EXPECT_EQ(config->logit_scale, 1);
  EXPECT_EQ(config->pad_token_id, 50256);
  EXPECT_EQ(config->eos_token_ids, std::vector<int64_t>{50256});
  EXPECT_EQ(config->decoder_start_token_id, 50257);
  EXPECT_EQ(config->suppressed, std::vector<int64_t>());
  EXPECT_EQ(config->suppressed_first, (std::vector<int64_t>{220, 50256}));
  EXPECT_FALSE(config->attention.causal);
  EXPECT_TRUE(config->other_attention.causal);
  EXPECT_EQ(config->unit_of(4), 6) << "the encoder's norm lies between";
}

TEST(WhisperConfig, KeysAreHonoured) {
  // As openai/whisper-large-v3 has them.
  const auto config = read_whisper(R"({"vocab_size": 51866, "num_mel_bins": 128, "d_model": 1280,
      "encoder_layers": 32, "decoder_layers": 30, "encoder_attention_heads": 20,
      "decoder_attention_heads": 20, "encoder_ffn_dim": 5120, "decoder_ffn_dim": 5120,
      "num_hidden_layers": 32, "max_source_positions": 1400, "max_target_positions": 400,
      "activation_function": "gelu_new", "dropout": 0.1, "attention_dropout": 0.2,
      "activation_dropout": 0.3, "init_std": 0.5, "scale_embedding": true, "pad_token_id": 50256,
      "bos_token_id": 50257, "eos_token_id": 50257, "decoder_start_token_id": 50258,
      "tie_word_embeddings": false, "suppress_tokens": [7, 8],
      "begin_suppress_tokens": [220, 50257],
      "forced_decoder_ids": [[1, 50259]], "apply_spec_augment": false, "mask_time_prob": 0.05,
      "median_filter_width": 7, "use_weighted_layer_sum": false, "classifier_proj_size": 256,
      "max_length": 448})");
  EXPECT_EQ(config->audio.mel_bins, 128);
  EXPECT_EQ(config->layers, 62);
  EXPECT_EQ(config->other_layers, 30);
  EXPECT_EQ(config->heads, 20);
  EXPECT_EQ(config->positions, 1400);
  EXPECT_EQ(config->target_positions, 400);
  EXPECT_EQ(config->activation, ops::Activation::kGeluTanh);
  EXPECT_EQ(config->dropout, 0.1);
  EXPECT_EQ(config->attention_dropout, 0.2);
  EXPECT_EQ(config->activation_dropout, 0.3);
  EXPECT_EQ(config->initializer_range, 0.5);
  EXPECT_FALSE(config->tied);
  EXPECT_EQ(config->decoder_start_token_id, 50258);
  EXPECT_EQ(config->suppressed, (std::vector<int64_t>{7, 8}));
  EXPECT_EQ(read_whisper(R"({"hidden_size": 12, "num_attention_heads": 6})")->hidden, 12);
}

TEST(WhisperConfig, WhatItCannotComputeIsRefused) {
  const std::pair<const char*, const char*> wrong[] = {
      {R"({"is_encoder_decoder": false})", "is_encoder_decoder"},
      {R"({"is_decoder": true})", "is_decoder"},
      {R"({"encoder_layerdrop": 0.1})", "encoder_layerdrop"},
      {R"({"decoder_layerdrop": 0.1})", "decoder_layerdrop"},
      {R"({"apply_spec_augment": true})", "apply_spec_augment"},
      {R"({"decoder_attention_heads": 3})", "decoder_attention_heads"},
      {R"({"encoder_attention_heads": 7, "decoder_attention_heads": 7})",
       "encoder_attention_heads"},
      {R"({"decoder_ffn_dim": 8})", "decoder_ffn_dim"},
      {R"({"d_model": 15, "encoder_attention_heads": 3, "decoder_attention_heads": 3})", "d_model"},
      {R"({"num_mel_bins": 0})", "num_mel_bins"},
      {R"({"max_source_positions": 0})", "max_source_positions"},
      {R"({"max_target_positions": 0})", "max_target_positions"},
      {R"({"activation_function": "mish"})", "activation_function"},
      {R"({"decoder_start_token_id": 51865})", "decoder_start_token_id"},
      {R"({"num_hidden_layers": 5, "encoder_layers": 4})", "num_hidden_layers"},
      {R"({"dropout": 1})", "dropout"},
      {R"({"rope_theta": 1})", "rope_theta"},
  };
  for (const auto& [json, field] : wrong) {
    const auto config = whisper_family().parse_config(json);
    ASSERT_FALSE(config) << json;
    EXPECT_EQ(config.error().field(), field) << json;
  }
}

TEST(WhisperConfig, IsWrittenAsItWasRead) {
  for (const char* text :
       {"{}", R"({"scale_embedding": true, "encoder_layers": 3, "suppress_tokens": [3, 4],
                  "begin_suppress_tokens": null, "tie_word_embeddings": false})",
        R"({"pad_token_id": null, "activation_function": "relu", "vocab_size": 300,
            "decoder_start_token_id": 7})"}) {
    const auto config = read_whisper(text);
    const std::string written = whisper_family().config_json(*config, {});
    EXPECT_EQ(whisper_family().config_json(*read_whisper(written), {}), written);
    const auto json = nlohmann::json::parse(written);
    EXPECT_EQ(json["architectures"][0], "WhisperForConditionalGeneration");
    EXPECT_EQ(json["scale_embedding"], config->scale_embedding);
  }
  // Tokens beyond a smaller vocabulary, which are the defaults, would be none of it.
  const auto small = nlohmann::json::parse(whisper_family().config_json(
      *read_whisper(R"({"vocab_size": 99, "decoder_start_token_id": 1})"), {}));
  EXPECT_TRUE(small.at("begin_suppress_tokens").is_null());
  EXPECT_TRUE(small.at("pad_token_id").is_null());
}

TEST(WhisperConfig, LearnsOneTask) {
  EXPECT_EQ(learned_tasks(*read_whisper("{}")), std::vector<std::string>{"speech_recognition"});
  const auto t5 = find_family("t5")->parse_config("{}");
  EXPECT_EQ(learned_tasks(**t5), std::vector<std::string>{"seq2seq"});
}

// As transformers' sinusoids(), for a row here and there.
TEST(WhisperPlan, PositionsBeginAsSinesAndCosines) {
  const auto config = read_whisper(R"({"d_model": 12, "max_source_positions": 30, "encoder_layers":
      1, "decoder_layers": 1, "vocab_size": 50, "decoder_start_token_id": 1, "init_std": 0.3})");
  ThreadPool pool(1);
  int found = 0;
  for (const ParameterInfo& info : whisper_family().plan(*config, 1, 0)) {
    EXPECT_TRUE(info.trained) << info.name;
    if (info.name != "model.encoder.embed_positions.weight") continue;
    ++found;
    std::vector<float> values(static_cast<size_t>(info.shape.elements()));
    initialize_values(pool, info, {0, std::ssize(values)}, values.data(), 3);
    for (const int64_t position : {0, 1, 29}) {
      for (int64_t wave = 0; wave < 6; ++wave) {
        const double angle = static_cast<double>(position) *
                             std::exp(-std::log(10000.0) / 5 * static_cast<double>(wave));
        const auto at = static_cast<size_t>(position * 12 + wave);
        EXPECT_NEAR(values[at], std::sin(angle), 1e-6) << position << " " << wave;
        EXPECT_NEAR(values[at + 6], std::cos(angle), 1e-6) << position << " " << wave;
      }
    }
  }
  EXPECT_EQ(found, 1);
}

}  // namespace
}  // namespace weft
