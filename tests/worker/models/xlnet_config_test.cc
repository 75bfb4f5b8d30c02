// Every key of XLNet's configuration is honoured or refused by name.
#include "worker/models/xlnet_config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <utility>

namespace weft {
namespace {

const ModelFamily& xlnet() { return *find_family("xlnet"); }

std::shared_ptr<const xlnet::Config> read_xlnet(const std::string& json) {
  const auto config = xlnet::parse_config(json);
  if (!config) throw StatusError(config.error());
  return *config;
}

TEST(XlnetConfig, AbsentKeysAreTransformersDefaults) {
  const auto config = read_xlnet("{}");
  EXPECT_EQ(config->vocabulary, 32000);
  EXPECT_EQ(config->hidden, 1024);
  EXPECT_EQ(config->layers, 24);
  EXPECT_EQ(config->heads, 16);
  EXPECT_EQ(config->head_features, 64);
  EXPECT_EQ(config->inner, 4096);
  EXPECT_EQ(config->activation, ops::Activation::kGeluErf);
  EXPECT_EQ(config->dropout, 0.1);
  EXPECT_EQ(config->epsilon, 1e-12);
  EXPECT_EQ(config->distance_max, -1);
  EXPECT_EQ(config->summary, "last");
  EXPECT_EQ(config->summary_activation, ops::Activation::kTanh);
  EXPECT_EQ(config->summary_first_dropout, 0);
  EXPECT_EQ(config->summary_last_dropout, 0.1);
  EXPECT_EQ(config->bos_token_id, 1);
  EXPECT_EQ(config->eos_token_ids, std::vector<int64_t>{2});
  EXPECT_EQ(config->pad_token_id, 5);
  EXPECT_EQ(config->tokens_max(), kAnyLength);
  EXPECT_FALSE(config->attention.causal);
  EXPECT_TRUE(config->relative_by_row);
}

TEST(XlnetConfig, KeysAreHonoured) {
  const auto config = read_xlnet(R"({"n_token": 99, "hidden_size": 12, "num_hidden_layers": 2,
      "num_attention_heads": 3, "d_head": 4, "d_inner": 7, "ff_activation": "relu", "dropout": 0,
      "layer_norm_eps": 0.001, "clamp_len": 6, "summary_type": "first", "summary_activation": null,
      "summary_first_dropout": 0.3, "summary_last_dropout": 0.2, "initializer_range": 0.5,
      "pad_token_id": 0, "mem_len": null, "reuse_len": null, "same_length": true})");
  EXPECT_EQ(config->vocabulary, 99);
  EXPECT_EQ(config->head_features, 4);
  EXPECT_EQ(config->distance_max, 6);
  EXPECT_FALSE(config->relative_by_row) << "nothing is dropped";
  const auto head = xlnet().head(*config, HeadKind::kSequence, 5);
  ASSERT_TRUE(head);
  EXPECT_EQ(head->pooled, PooledToken::kFirst);
  EXPECT_EQ(head->layers[0].name, "sequence_summary.summary");
  EXPECT_EQ(head->layers[0].dropout, 0.3);
  EXPECT_FALSE(head->layers[0].activation);
  EXPECT_EQ(head->layers[1].name, "logits_proj");
  EXPECT_EQ(head->layers[1].out, 5);
  EXPECT_EQ(head->layers[1].dropout, 0.2);
  EXPECT_EQ(xlnet().head(*read_xlnet("{}"), HeadKind::kSequence, 2)->pooled, PooledToken::kEnd);
  EXPECT_EQ(xlnet().head(*config, HeadKind::kToken, 4)->layers.front().name, "classifier");
  const auto choice = xlnet().head(*config, HeadKind::kChoice, 4);
  EXPECT_EQ(choice->pooled, PooledToken::kFirst);
  EXPECT_EQ(choice->layers.back().name, "logits_proj");
  EXPECT_EQ(choice->layers.back().out, 1) << "a number for each choice";
  EXPECT_FALSE(xlnet().head(*config, HeadKind::kSpan, 2));
}

TEST(XlnetConfig, WhatItCannotComputeIsRefused) {
  const std::pair<const char*, const char*> wrong[] = {
      {R"({"attn_type": "uni"})", "attn_type"},
      {R"({"bi_data": true})", "bi_data"},
      {R"({"untie_r": false})", "untie_r"},
      {R"({"use_mems_train": true})", "use_mems_train"},
      {R"({"d_head": 32})", "d_head"},
      {R"({"n_head": 7})", "n_head"},
      {R"({"d_model": 9, "n_head": 3})", "d_model"},
      {R"({"ff_activation": "mish"})", "ff_activation"},
      {R"({"summary_type": "mean"})", "summary_type"},
      {R"({"summary_use_proj": false})", "summary_use_proj"},
      {R"({"summary_proj_to_labels": true})", "summary_proj_to_labels"},
      {R"({"summary_activation": "mish"})", "summary_activation"},
      {R"({"tie_word_embeddings": false})", "tie_word_embeddings"},
      {R"({"max_position_embeddings": 512})", "max_position_embeddings"},
      {R"({"dropout": 1})", "dropout"},
  };
  for (const auto& [json, field] : wrong) {
    const auto config = xlnet().parse_config(json);
    ASSERT_FALSE(config) << json;
    EXPECT_EQ(config.error().field(), field) << json;
  }
}

TEST(XlnetConfig, IsWrittenAsItWasRead) {
  for (const char* text :
       {"{}", R"({"clamp_len": 4, "n_layer": 3, "summary_type": "cls_index", "n_head": 4,
                  "summary_activation": "", "ff_activation": "gelu_new"})"}) {
    const auto config = read_xlnet(text);
    const std::string written = xlnet().config_json(*config, {});
    EXPECT_EQ(xlnet().config_json(*read_xlnet(written), {}), written);
  }
  const ExportHead head{.labels = 3};
  const auto json = nlohmann::json::parse(xlnet().config_json(*read_xlnet("{}"), head));
  EXPECT_EQ(json["architectures"][0], "XLNetForSequenceClassification");
}

}  // namespace
}  // namespace weft
