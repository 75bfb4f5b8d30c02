// Every key of a Llama configuration is honoured or refused by name.
#include "worker/models/llama_config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <optional>

namespace weft {
namespace {

const ModelFamily& family() { return *find_family("llama"); }

Result<std::shared_ptr<const llama::Config>> parse(std::string_view json) {
  return llama::parse_config(llama::dialects().front(), json);
}

std::string refusal(const std::string& json) {
  const Result<ModelConfigPtr> config = family().parse_config(json);
  return config ? "accepted" : config.error().field();
}

TEST(LlamaConfig, AbsentKeysAreTransformersDefaults) {
  const auto config = parse("{}");
  ASSERT_TRUE(config) << config.error().to_string();
  const llama::Config& c = **config;
  EXPECT_EQ(c.vocabulary, 32000);
  EXPECT_EQ(c.positions, 2048);
  EXPECT_EQ(c.hidden, 4096);
  EXPECT_EQ(c.inner, 11008);
  EXPECT_EQ(c.layers, 32);
  EXPECT_EQ(c.heads, 32);
  EXPECT_EQ(c.key_heads, 32);
  EXPECT_EQ(c.head_features, 128);
  EXPECT_EQ(c.bos_token_id, 1);
  EXPECT_EQ(c.eos_token_ids, std::vector<int64_t>{2});
  EXPECT_FALSE(c.pad_token_id);
  EXPECT_FALSE(c.tied);
  EXPECT_EQ(c.epsilon, 1e-6);
  EXPECT_EQ(c.rotary_base, 10000);
  EXPECT_FALSE(c.scaling);
}

TEST(LlamaConfig, KeysAreHonoured) {
  const auto config = parse(R"({"hidden_size": 10, "num_attention_heads": 6,
      "num_key_value_heads": 2, "head_dim": 4, "intermediate_size": 7, "vocab_size": 11,
      "max_position_embeddings": 9, "num_hidden_layers": 2, "rms_norm_eps": 0.001,
      "attention_dropout": 0.25, "tie_word_embeddings": true, "pad_token_id": 4,
      "eos_token_id": null, "rope_theta": 500000.0})");
  ASSERT_TRUE(config) << config.error().to_string();
  const llama::Config& c = **config;
  EXPECT_EQ(c.key_heads, 2);
  EXPECT_EQ(c.head_features, 4);
  EXPECT_EQ(c.inner, 7);
  EXPECT_EQ(c.epsilon, 0.001);
  EXPECT_EQ(c.attention_dropout, 0.25);
  EXPECT_TRUE(c.tied);
  EXPECT_TRUE(c.eos_token_ids.empty());
  EXPECT_EQ(c.rotary_base, 500000);
}

TEST(LlamaConfig, PositionsTurnAsBothSpellingsSay) {
  const std::string scaling = R"("rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
      "high_freq_factor": 4.0, "original_max_position_embeddings": 64)";
  const auto old_form = parse(R"({"rope_theta": 500.0, "rope_scaling": {)" + scaling + "}}");
  const auto new_form = parse(R"({"rope_parameters": {"rope_theta": 500.0, )" + scaling + "}}");
  ASSERT_TRUE(old_form) << old_form.error().to_string();
  ASSERT_TRUE(new_form) << new_form.error().to_string();
  EXPECT_EQ((*old_form)->frequencies(), (*new_form)->frequencies());
  const std::vector<double> plain = (*parse(R"({"rope_theta": 500.0})"))->frequencies();
  const std::vector<double> scaled = (*old_form)->frequencies();
  EXPECT_EQ(scaled.front(), plain.front());  // 64 positions are ten turns of it
  EXPECT_NEAR(scaled.back(), plain.back() / 8, 1e-9);
  const auto linear = parse(R"({"rope_theta": 500.0,
      "rope_scaling": {"type": "linear", "factor": 4.0}})");
  ASSERT_TRUE(linear) << linear.error().to_string();
  EXPECT_EQ((*linear)->frequencies().front(), 0.25);
}

TEST(LlamaConfig, OneBaseIsSaidOnceOrTwiceTheSame) {
  EXPECT_EQ(refusal(R"({"rope_theta": 500.0, "rope_parameters": {"rope_theta": 500}})"),
            "accepted");
  const auto two = parse(R"({"rope_theta": 500000.0, "rope_parameters": {"rope_theta": 10000.0}})");
  ASSERT_FALSE(two);
  EXPECT_EQ(two.error().field(), "rope_parameters.rope_theta");
  EXPECT_EQ(two.error().value(), "10000.0");
  EXPECT_NE(two.error().rule().find("rope_theta beside rope_parameters, which says 500000"),
            std::string::npos)
      << two.error().rule();
  EXPECT_EQ(refusal(R"({"rope_theta": 500.0, "rope_scaling": {"rope_theta": 400.0}})"),
            "rope_scaling.rope_theta");
}

// As torch computes them, whose exponents of 2/6 and 4/6 are rounded to fp32 too.
TEST(LlamaConfig, FrequenciesAreThoseOfFp32) {
  const auto config = parse(R"({"hidden_size": 36, "num_attention_heads": 6, "head_dim": 6})");
  ASSERT_TRUE(config) << config.error().to_string();
  EXPECT_EQ((*config)->frequencies(),
            (std::vector<double>{1, 0x1.7c3d2a0000000p-5, 0x1.1a62d20000000p-9}));
}

TEST(LlamaConfig, SeveralTokensMayEndAText) {
  const auto config = parse(R"({"eos_token_id": [5, 8, 9]})");
  ASSERT_TRUE(config) << config.error().to_string();
  EXPECT_EQ((*config)->eos_token_ids, (std::vector<int64_t>{5, 8, 9}));
}

TEST(LlamaConfig, TokenIdsAreOfTheVocabulary) {
  EXPECT_EQ(refusal(R"({"vocab_size": 10, "bos_token_id": 10})"), "bos_token_id");
  EXPECT_EQ(refusal(R"({"vocab_size": 10, "pad_token_id": -2})"), "pad_token_id");
  EXPECT_EQ(refusal(R"({"vocab_size": 10, "eos_token_id": [9, 11]})"), "eos_token_id");
  const auto refused = parse(R"({"vocab_size": 10, "eos_token_id": [9, 11]})");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().value(), "[9,11]");
  EXPECT_NE(refused.error().rule().find("from 0 to 9"), std::string::npos);
}

// As published folders have them.
TEST(LlamaConfig, MinusOneAndTheDefaultsOfALargerVocabularyAreNoTokens) {
  const auto config = parse(
      R"({"vocab_size": 10, "bos_token_id": 0, "eos_token_id": [9, -1], "pad_token_id": -1})");
  ASSERT_TRUE(config) << config.error().to_string();
  EXPECT_EQ((*config)->bos_token_id, 0);
  EXPECT_EQ((*config)->eos_token_ids, std::vector<int64_t>{9});
  EXPECT_FALSE((*config)->pad_token_id);
  for (const char* text :
       {R"({"vocab_size": 1})", R"({"vocab_size": 1, "bos_token_id": 1, "eos_token_id": 2})"}) {
    const auto small = parse(text);
    ASSERT_TRUE(small) << small.error().to_string();
    EXPECT_FALSE((*small)->bos_token_id);
    EXPECT_TRUE((*small)->eos_token_ids.empty());
  }
}

TEST(LlamaConfig, RefusalsNameTheKey) {
  EXPECT_EQ(refusal(R"({"n_embd": 6})"), "n_embd");
  EXPECT_EQ(refusal(R"({"model_type": "gpt2"})"), "model_type");
  EXPECT_EQ(refusal(R"({"num_key_value_heads": 3})"), "num_key_value_heads");
  EXPECT_EQ(refusal(R"({"num_key_value_heads": 0})"), "num_key_value_heads");
  EXPECT_EQ(refusal(R"({"num_attention_heads": 5})"), "num_attention_heads");
  EXPECT_EQ(refusal(R"({"head_dim": 5})"), "head_dim");
  EXPECT_EQ(refusal(R"({"head_dim": 4294967296})"), "head_dim");
  EXPECT_EQ(refusal(R"({"hidden_size": 1073741824, "num_hidden_layers": 100000})"), "hidden_size");
  EXPECT_EQ(refusal(R"({"hidden_act": "gelu"})"), "hidden_act");
  EXPECT_EQ(refusal(R"({"attention_bias": 1})"), "attention_bias");
  EXPECT_EQ(refusal(R"({"mlp_bias": true})"), "mlp_bias");
  EXPECT_EQ(refusal(R"({"pretraining_tp": 2})"), "pretraining_tp");
  EXPECT_EQ(refusal(R"({"eos_token_id": [2, "three"]})"), "eos_token_id");
  EXPECT_EQ(refusal(R"({"bos_token_id": [2]})"), "bos_token_id");
  EXPECT_EQ(refusal(R"({"rope_theta": 0.5})"), "rope_theta");
  EXPECT_EQ(refusal(R"({"rope_scaling": 3})"), "rope_scaling");
  EXPECT_EQ(refusal(R"({"rope_scaling": {"rope_type": "yarn", "factor": 2}})"),
            "rope_scaling.rope_type");
  EXPECT_EQ(refusal(R"({"rope_scaling": {"type": "linear"}})"), "rope_scaling.factor");
  EXPECT_EQ(refusal(R"({"rope_parameters": {"rope_type": "default", "beta_fast": 32}})"),
            "rope_parameters.beta_fast");
  EXPECT_EQ(refusal(R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
                        "high_freq_factor": 4}})"),
            "rope_scaling.high_freq_factor");
}

// Of the first Llamas, of SmolLM and of copies of Llama 3.
TEST(LlamaConfig, KeysOfPublishedFoldersThatChangeNothingAreAccepted) {
  EXPECT_EQ(refusal(R"({"max_sequence_length": 4096, "is_llama_config": true,
      "rope_interleaved": false, "unsloth_fixed": true, "unsloth_version": "2024.9",
      "transformers.js_config": {"dtype": "q4", "kv_cache_dtype": {"q4f16": "float16"}}})"),
            "accepted");
  EXPECT_EQ(refusal(R"({"rope_interleaved": true})"), "rope_interleaved");
}

TEST(LlamaConfig, WhatIsWrittenReadsBackTheSame) {
  const auto config = family().parse_config(R"({"hidden_size": 12, "num_attention_heads": 6,
      "num_key_value_heads": 3, "head_dim": 4, "vocab_size": 11, "pad_token_id": 4,
      "eos_token_id": [5, 8],
      "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                       "high_freq_factor": 4.0, "original_max_position_embeddings": 64}})");
  ASSERT_TRUE(config) << config.error().to_string();
  const std::string text = family().config_json(**config, {.labels = 2, .label_names = {"a", "b"}});
  EXPECT_NE(text.find("LlamaForSequenceClassification"), std::string::npos);
  const auto again = family().parse_config(text);
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ((*again)->eos_token_ids, (*config)->eos_token_ids);
  EXPECT_EQ(family().config_json(**again, {}), family().config_json(**config, {}));
}

TEST(LlamaConfig, TheTokenizersEndOfTextIsWrittenWhereNoEndIsIt) {
  const auto written = [](const char* config, std::optional<int64_t> end_of_text) {
    const auto parsed = family().parse_config(config);
    EXPECT_TRUE(parsed);
    const std::string text = family().config_json(**parsed, {.end_of_text = end_of_text});
    const nlohmann::json json = nlohmann::json::parse(text);
    return std::vector<nlohmann::json>{json["bos_token_id"], json["eos_token_id"],
                                       json["pad_token_id"]};
  };
  using Ids = std::vector<nlohmann::json>;
  EXPECT_EQ(written("{}", std::nullopt), (Ids{1, 2, nullptr}));
  EXPECT_EQ(written("{}", 256), (Ids{256, 256, 256}));
  const char* own = R"({"bos_token_id": 3, "eos_token_id": [256, 2], "pad_token_id": 4})";
  EXPECT_EQ(written(own, 256), (Ids{3, Ids{256, 2}, 4}));
}

const llama::Config& as_llama(const ModelConfigPtr& config) {
  return dynamic_cast<const llama::Config&>(*config);
}
// What the family makes of the keys; the test fails where it refuses them.
ModelConfigPtr made(const char* name, const std::string& json) {
  const Result<ModelConfigPtr> config = find_family(name)->parse_config(json);
  EXPECT_TRUE(config) << name << " " << config.error().to_string();
  return config ? *config : nullptr;
}
std::string refusal(const char* name, const std::string& json) {
  const Result<ModelConfigPtr> config = find_family(name)->parse_config(json);
  return config ? "accepted" : config.error().field();
}

// As the configuration classes of transformers 5.24 have them.
TEST(LlamasKin, AbsentKeysAreTransformersDefaults) {
  const ModelConfigPtr mistral = made("mistral", "{}"), qwen2 = made("qwen2", "{}"),
                       qwen3 = made("qwen3", R"({"hidden_size": 1024})");
  EXPECT_EQ(mistral->key_heads, 8);
  EXPECT_EQ(mistral->positions, 131072);
  EXPECT_EQ(mistral->inner, 14336);
  EXPECT_EQ(mistral->vocabulary, 32000);
  EXPECT_EQ(mistral->bos_token_id, 1);
  EXPECT_EQ(as_llama(mistral).window, 4096);
  EXPECT_EQ(mistral->attention.window_left, 4095);
  for (const ModelConfigPtr& qwen : {qwen2, qwen3}) {
    EXPECT_EQ(qwen->key_heads, 32);
    EXPECT_EQ(qwen->positions, 32768);
    EXPECT_EQ(qwen->inner, 22016);
    EXPECT_EQ(qwen->vocabulary, 151936);
    EXPECT_FALSE(qwen->bos_token_id);
    EXPECT_TRUE(qwen->eos_token_ids.empty());
    EXPECT_EQ(qwen->attention.window_left, -1);
  }
  EXPECT_EQ(qwen2->head_features, 128);
  EXPECT_TRUE(as_llama(qwen2).input_biases);
  EXPECT_FALSE(as_llama(qwen2).output_bias);
  EXPECT_EQ(qwen3->head_features, 128);  // whatever hidden_size is
  EXPECT_TRUE(qwen3->head_norms);
  EXPECT_FALSE(as_llama(qwen3).input_biases);
}

TEST(LlamasKin, WindowsAreOfTheLayersThatAreNamed) {
  const ModelConfigPtr whole = made("mistral", R"({"sliding_window": null})");
  EXPECT_EQ(whole->attention.window_left, -1);
  EXPECT_EQ(whole->other_layers, 0);
  const ModelConfigPtr unused = made("qwen2", R"({"sliding_window": 131072,
      "max_window_layers": 28, "use_sliding_window": false})");
  EXPECT_EQ(unused->other_layers, 0);
  const ModelConfigPtr later = made("qwen2", R"({"sliding_window": 16, "max_window_layers": 1,
      "num_hidden_layers": 3, "use_sliding_window": true})");
  EXPECT_FALSE(as_llama(later).has_window(0));
  EXPECT_TRUE(as_llama(later).has_window(2));
  EXPECT_EQ(later->attention.window_left, 15);
  EXPECT_EQ(later->other_attention.window_left, -1);
  EXPECT_EQ(later->other_layers, 1);
  const ModelConfigPtr shorter = find_family("qwen2")->with_layers(*later, 1);
  EXPECT_EQ(shorter->attention.window_left, -1);
  EXPECT_EQ(shorter->other_layers, 0);
  const ModelConfigPtr named = made("qwen3", R"({"sliding_window": 16, "num_hidden_layers": 3,
      "use_sliding_window": true,
      "layer_types": ["sliding_attention", "full_attention", "full_attention"]})");
  EXPECT_TRUE(as_llama(named).has_window(0));
  EXPECT_EQ(named->attention.window_left, -1);
  EXPECT_EQ(named->other_attention.window_left, 15);
  EXPECT_EQ(named->other_layers, 1);
}

TEST(LlamasKin, RefusalsNameTheKey) {
  EXPECT_EQ(refusal("mistral", R"({"attention_bias": true})"), "attention_bias");
  EXPECT_EQ(refusal("mistral", R"({"sliding_window": 0})"), "sliding_window");
  EXPECT_EQ(refusal("mistral", R"({"sliding_window": 1.5})"), "sliding_window");
  EXPECT_EQ(refusal("mistral", R"({"layer_types": []})"), "layer_types");
  EXPECT_EQ(refusal("mistral", R"({"model_type": "llama"})"), "model_type");
  EXPECT_EQ(refusal("llama", R"({"sliding_window": 8})"), "sliding_window");
  EXPECT_EQ(refusal("qwen2", R"({"attention_bias": false})"), "attention_bias");
  const std::string two = R"({"num_hidden_layers": 2, "use_sliding_window": true, "layer_types": )";
  EXPECT_EQ(refusal("qwen3", two + R"(["full_attention"]})"), "layer_types");
  EXPECT_EQ(refusal("qwen3", two + R"(["full_attention", "linear_attention"]})"), "layer_types");
  EXPECT_EQ(refusal("qwen3", two + R"(["full_attention", 3]})"), "layer_types");
  EXPECT_EQ(refusal("qwen3", two + R"(3})"), "layer_types");
  EXPECT_EQ(refusal("qwen3", R"({"num_hidden_layers": 1, "layer_types": ["sliding_attention"]})"),
            "layer_types");
  EXPECT_EQ(refusal("qwen3", R"({"use_sliding_window": 1})"), "use_sliding_window");
  EXPECT_EQ(refusal("qwen3", R"({"max_window_layers": -1})"), "max_window_layers");
}

TEST(LlamasKin, WhatIsWrittenReadsBackTheSame) {
  const std::pair<const char*, const char*> configurations[] = {
      {"llama", R"({"attention_bias": true})"},
      {"mistral", "{}"},
      {"mistral", R"({"sliding_window": null, "head_dim": 64})"},
      {"qwen2", R"({"use_sliding_window": true, "max_window_layers": 20})"},
      {"qwen3", R"({"attention_bias": true, "eos_token_id": 7})"},
  };
  for (const auto& [name, keys] : configurations) {
    const ModelConfigPtr config = made(name, keys);
    const std::string text = find_family(name)->config_json(*config, {});
    const ModelConfigPtr again = made(name, text);
    EXPECT_EQ(find_family(name)->config_json(*again, {}), text) << name;
    EXPECT_EQ(as_llama(again).window, as_llama(config).window) << name;
    EXPECT_EQ(as_llama(again).input_biases, as_llama(config).input_biases) << name;
    EXPECT_EQ(again->other_layers, config->other_layers) << name;
    EXPECT_EQ(*family_of_config(text), name);
  }
}

TEST(LlamaConfig, DropoutCanBeOverridden) {
  const auto config = parse(R"({"attention_dropout": 0.5})");
  const ModelConfigPtr other = family().with_dropout(**config, 0.0);
  EXPECT_NE(family().config_json(*other, {}).find("\"attention_dropout\": 0.0"), std::string::npos);
}

}  // namespace
}  // namespace weft
