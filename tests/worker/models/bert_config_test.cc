// Every key of the encoders' configurations is honoured or refused by name.
#include "worker/models/bert_config.h"

#include <gtest/gtest.h>

namespace weft {
namespace {

const bert::Config& read(const std::string& family, const std::string& json) {
  static std::vector<ModelConfigPtr> kept;
  auto config = find_family(family)->parse_config(json);
  if (!config) throw StatusError(config.error());
  kept.push_back(*config);
  return dynamic_cast<const bert::Config&>(**config);
}

std::string refused_field(const std::string& family, const std::string& json) {
  const auto config = find_family(family)->parse_config(json);
  return config ? "accepted" : config.error().field();
}

TEST(BertConfig, AbsentKeysAreTransformersDefaults) {
  const bert::Config& bert = read("bert", "{}");
  EXPECT_EQ(bert.vocabulary, 30522);
  EXPECT_EQ(bert.tokens_max(), 512);
  EXPECT_EQ(bert.layers, 12);
  EXPECT_EQ(bert.token_types, 2);
  EXPECT_EQ(bert.pad_token_id, 0);
  EXPECT_FALSE(bert.bos_token_id);
  EXPECT_TRUE(bert.eos_token_ids.empty());
  EXPECT_EQ(bert.epsilon, 1e-12);
  EXPECT_EQ(bert.activation, ops::Activation::kGeluErf);
  EXPECT_FALSE(bert.attention.causal);
  EXPECT_FALSE(bert.classifier_dropout);
  const bert::Config& roberta = read("roberta", "{}");
  EXPECT_EQ(roberta.vocabulary, 50265);
  EXPECT_EQ(roberta.positions, 512);
  EXPECT_EQ(roberta.tokens_max(), 510);
  EXPECT_EQ(roberta.eos_token_ids, std::vector<int64_t>{2});
  const bert::Config& distilbert = read("distilbert", "{}");
  EXPECT_EQ(distilbert.layers, 6);
  EXPECT_EQ(distilbert.token_types, 0);
  EXPECT_EQ(distilbert.classifier_dropout, 0.2);
}

TEST(BertConfig, KeysAreHonoured) {
  const bert::Config& bert = read("bert", R"({"hidden_size": 6, "num_attention_heads": 3,
      "intermediate_size": 7, "hidden_act": "relu", "hidden_dropout_prob": 0.25,
      "attention_probs_dropout_prob": 0.5, "layer_norm_eps": 0.001, "type_vocab_size": 3,
      "classifier_dropout": 0, "pad_token_id": null, "num_hidden_layers": 2})");
  EXPECT_EQ(bert.head_features, 2);
  EXPECT_EQ(bert.inner, 7);
  EXPECT_EQ(bert.activation, ops::Activation::kRelu);
  EXPECT_EQ(bert.dropout, 0.25);
  EXPECT_EQ(bert.attention_dropout, 0.5);
  EXPECT_EQ(bert.epsilon, 0.001);
  EXPECT_EQ(bert.token_types, 3);
  EXPECT_EQ(bert.classifier_dropout, 0);
  EXPECT_FALSE(bert.pad_token_id);
  const bert::Config& distilbert = read("distilbert", R"({"dim": 6, "n_heads": 2, "n_layers": 1,
      "hidden_dim": 5, "activation": "silu", "dropout": 0, "attention_dropout": 0.3})");
  EXPECT_EQ(distilbert.hidden, 6);
  EXPECT_EQ(distilbert.heads, 2);
  EXPECT_EQ(distilbert.layers, 1);
  EXPECT_EQ(distilbert.inner, 5);
  EXPECT_EQ(distilbert.activation, ops::Activation::kSilu);
  EXPECT_EQ(distilbert.dropout, 0);
  EXPECT_EQ(distilbert.attention_dropout, 0.3);
  EXPECT_EQ(read("distilbert", R"({"hidden_size": 12})").hidden, 12);
  EXPECT_EQ(read("roberta", R"({"pad_token_id": 5})").tokens_max(), 506);
}

TEST(BertConfig, RefusalsNameTheKey) {
  for (const char* family : {"bert", "roberta", "distilbert"}) {
    EXPECT_EQ(refused_field(family, R"({"is_decoder": true})"), "is_decoder") << family;
    EXPECT_EQ(refused_field(family, R"({"add_cross_attention": true})"), "add_cross_attention");
    EXPECT_EQ(refused_field(family, R"({"tie_word_embeddings": false})"), "tie_word_embeddings");
    EXPECT_EQ(refused_field(family, R"({"vocab_size": 4, "pad_token_id": 4})"), "pad_token_id");
    EXPECT_EQ(refused_field(family, R"({"n_positions": 4})"), "n_positions");
  }
  EXPECT_EQ(refused_field("bert", R"({"position_embedding_type": "relative_key"})"),
            "position_embedding_type");
  EXPECT_EQ(refused_field("bert", R"({"hidden_act": "mish"})"), "hidden_act");
  EXPECT_EQ(refused_field("bert", R"({"hidden_size": 10})"), "num_attention_heads");
  EXPECT_EQ(refused_field("bert", R"({"sinusoidal_pos_embds": false})"), "sinusoidal_pos_embds");
  EXPECT_EQ(refused_field("bert", R"({"classifier_dropout": 1})"), "classifier_dropout");
  EXPECT_EQ(refused_field("bert", R"({"pooler_type": "first_token_transform"})"), "accepted");
  EXPECT_EQ(refused_field("roberta", R"({"pad_token_id": null})"), "pad_token_id");
  EXPECT_EQ(refused_field("roberta", R"({"max_position_embeddings": 2})"),
            "max_position_embeddings");
  EXPECT_EQ(refused_field("roberta", R"({"max_position_embeddings": 3})"), "accepted");
  EXPECT_EQ(refused_field("distilbert", R"({"sinusoidal_pos_embds": true})"),
            "sinusoidal_pos_embds");
  EXPECT_EQ(refused_field("distilbert", R"({"layer_norm_eps": 1e-12})"), "layer_norm_eps");
  EXPECT_EQ(refused_field("distilbert", R"({"type_vocab_size": 2})"), "type_vocab_size");
  EXPECT_EQ(refused_field("distilbert", R"({"dim": 24, "hidden_size": 36})"), "hidden_size");
  EXPECT_EQ(refused_field("distilbert", R"({"qa_dropout": 0.1, "tie_weights_": true})"),
            "accepted");
}

TEST(BertConfig, WhatIsWrittenReadsBackTheSame) {
  for (const char* name : {"bert", "roberta", "distilbert"}) {
    const ModelFamily& family = *find_family(name);
    const auto config = family.parse_config(R"({"hidden_size": 6, "num_attention_heads": 3,
        "vocab_size": 11, "pad_token_id": 4, "initializer_range": 0.5})");
    ASSERT_TRUE(config) << config.error().to_string();
    const std::string text = family.config_json(**config, {.labels = 2, .label_names = {"a", "b"}});
    EXPECT_NE(text.find("ForSequenceClassification"), std::string::npos);
    const auto again = family.parse_config(text);
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_EQ(family.config_json(**again, {}), family.config_json(**config, {}));
  }
}

TEST(BertConfig, DropoutCanBeOverridden) {
  for (const char* name : {"bert", "roberta", "distilbert"}) {
    const ModelFamily& family = *find_family(name);
    const ModelConfigPtr other = family.with_dropout(**family.parse_config("{}"), 0);
    const auto head = family.head(*other, HeadKind::kSequence, 3);
    for (const HeadLayer& layer : head->layers) EXPECT_EQ(layer.dropout, 0) << name;
  }
}

}  // namespace
}  // namespace weft
