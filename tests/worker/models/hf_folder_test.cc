#include "worker/models/hf_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/testing/rank_runner.h"
#include "worker/checkpoint/safetensors.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using Tensors = std::map<std::string, std::vector<int64_t>>;

constexpr const char* kConfig = R"({"model_type": "gpt2", "n_embd": 6, "n_head": 3, "n_inner": 5,
    "vocab_size": 7, "n_positions": 4, "n_layer": 1})";

// A folder with a config.json and weights whose element i of tensor k is 1000 k + i; a head that is
// `tied` has the embedding's.
class Folder {
 public:
  Folder(const std::string& config, const Tensors& tensors, bool tied = true)
      : path_(fs::temp_directory_path() / ("weft-hf-" + std::to_string(::getpid()))) {
    fs::remove_all(path_);
    fs::create_directories(path_);
    std::ofstream(path_ / "config.json") << config;
    std::vector<SafetensorSpec> specs;
    for (const auto& [name, shape] : tensors) specs.push_back({name, shape});
    float next = 0;
    const Status status = write_safetensors(
        (path_ / "model.safetensors").string(), specs,
        [&](const SafetensorSpec& spec, const FloatSink& write) {
          std::vector<float> values(static_cast<size_t>(Shape(spec.shape).elements()));
          const bool embeds = spec.name == "lm_head.weight" || spec.name.ends_with("wte.weight");
          const float first = tied && embeds ? -1000 : next;
          for (size_t i = 0; i < values.size(); ++i) values[i] = first + static_cast<float>(i);
          next += 1000;
          return write(values);
        });
    EXPECT_TRUE(status.ok()) << status.to_string();
  }
  ~Folder() { fs::remove_all(path_); }
  std::string path() const { return path_.string(); }

 private:
  const fs::path path_;
};

Tensors all_tensors(bool prefix) {
  Tensors tensors;
  const auto family = find_family("gpt2");
  for (const ParameterInfo& info : family->plan(**family->parse_config(kConfig), 1, 0)) {
    const std::string name = family->file_names(info.name)[prefix ? 0 : 1];
    tensors[name] = {info.shape.extents().begin(), info.shape.extents().end()};
  }
  return tensors;
}

Status load(const std::string& path, MeshDegrees mesh = {}) {
  Status status;
  testing::run_mesh(mesh, [&](Rank& rank) {
    const Result<HfFolder> folder = open_hf_folder(path);
    if (!folder) {
      status = folder.error();
      return;
    }
    auto trunk = *folder->family->make_trunk(rank, folder->config);
    const Status mine = load_hf_weights(*folder, trunk->parameters());
    if (!mine.ok()) {
      status = mine;
      return;
    }
    for (const Parameter& parameter : trunk->parameters()) {
      float base = -1;
      for_each_shard_run(parameter.info, [&](int64_t local, int64_t global, int64_t count) {
        for (int64_t i = 0; i < count; ++i) {
          const float own = parameter.value.data<float>()[local + i];
          if (base < 0) base = own - static_cast<float>(global + i);
          ASSERT_EQ(own, base + static_cast<float>(global + i)) << parameter.info.name;
        }
      });
    }
  });
  return status;
}

TEST(HfFolder, LoadsWithAndWithoutPrefixOnEveryTensorDegree) {
  for (bool prefix : {true, false}) {
    const Folder folder(kConfig, all_tensors(prefix));
    for (int tensor : {1, 2, 3}) {
      const Status status = load(folder.path(), {.tensor = tensor});
      EXPECT_TRUE(status.ok()) << status.to_string();
    }
  }
}

TEST(HfFolder, OldBuffersAndTiedHeadsAreLeftOut) {
  Tensors tensors = all_tensors(false);
  tensors["h.0.attn.bias"] = {1, 1, 4, 4};
  tensors["h.0.attn.masked_bias"] = {1};
  tensors["lm_head.weight"] = {7, 6};
  EXPECT_TRUE(load(Folder(kConfig, tensors).path()).ok());
}

TEST(HfFolder, ATiedHeadThatDiffersIsRefused) {
  Tensors tensors = all_tensors(false);
  tensors["lm_head.weight"] = {7, 6};
  for (int tensor : {1, 2}) {
    const Status status = load(Folder(kConfig, tensors, /*tied=*/false).path(), {.tensor = tensor});
    const std::string text = status.to_string();
    EXPECT_NE(text.find("lm_head.weight"), std::string::npos) << text;
    EXPECT_NE(text.find("tie_word_embeddings"), std::string::npos) << text;
  }
  tensors["lm_head.weight"] = {7, 5};
  EXPECT_NE(load(Folder(kConfig, tensors).path()).to_string().find("[7, 5]"), std::string::npos);
}

TEST(HfFolder, ATiedHeadThatTheArchitectureDoesNotHaveIsLeftOut) {
  Tensors tensors = all_tensors(false);
  tensors["lm_head.weight"] = {7, 6};
  const std::string trunk = std::string(kConfig).insert(1, R"("architectures": ["GPT2Model"], )");
  EXPECT_TRUE(load(Folder(trunk, tensors, /*tied=*/false).path()).ok());
}

TEST(HfFolder, ATiedHeadStandsForTheEmbedding) {
  const auto head_alone = [](const std::string& config) {
    Tensors tensors = all_tensors(true);
    tensors.erase("transformer.wte.weight");
    tensors["lm_head.weight"] = {7, 6};
    return Folder(config, tensors);
  };
  for (int tensor : {1, 2}) {
    const Status status = load(head_alone(kConfig).path(), {.tensor = tensor});
    EXPECT_TRUE(status.ok()) << status.to_string();
  }
  const std::string untied = std::string(kConfig).insert(1, R"("tie_word_embeddings": false, )");
  EXPECT_NE(load(head_alone(untied).path()).to_string().find("wte.weight"), std::string::npos);
}

TEST(HfFolder, PickledWeightsAreRefusedWithWhatToDo) {
  const Folder folder(kConfig, all_tensors(true));
  fs::rename(folder.path() + "/model.safetensors", folder.path() + "/pytorch_model.bin");
  EXPECT_NE(load(folder.path()).to_string().find("save_pretrained"), std::string::npos);
}

TEST(HfFolder, MissingLeftOverAndMisshapenTensorsAreNamed) {
  Tensors tensors = all_tensors(true);
  tensors.erase("transformer.h.0.mlp.c_fc.bias");
  EXPECT_NE(load(Folder(kConfig, tensors).path()).to_string().find("h.0.mlp.c_fc.bias"),
            std::string::npos);
  tensors = all_tensors(true);
  tensors["transformer.h.1.mlp.c_fc.bias"] = {5};
  EXPECT_NE(load(Folder(kConfig, tensors).path()).to_string().find("h.1.mlp.c_fc.bias"),
            std::string::npos);
  tensors = all_tensors(true);
  tensors["transformer.ln_f.weight"] = {5};
  EXPECT_NE(load(Folder(kConfig, tensors).path()).to_string().find("ln_f.weight"),
            std::string::npos);
}

// As transformers 5 writes a T5 1.1 that was made there: tied in memory, so that the files have no
// head, but with logits that are not scaled, as those of a head of its own.
TEST(HfFolder, WhatSaysThatTheHeadIsItsOwnIsNamedWhereItIsMissing) {
  const auto told = [](const std::string& says) {
    const std::string config = R"({"model_type": "t5", "vocab_size": 9, "d_model": 4, "d_kv": 2,
        "d_ff": 3, "num_heads": 2, "num_layers": 1, )" +
                               says + "}";
    const auto family = find_family("t5");
    Tensors tensors;
    for (const ParameterInfo& info : family->plan(**family->parse_config(config), 1, 0)) {
      if (info.name == "lm_head.weight") continue;
      tensors[info.name] = {info.shape.extents().begin(), info.shape.extents().end()};
    }
    return load(Folder(config, tensors).path()).to_string();
  };
  for (const auto& [says, key] :
       {std::pair{R"("tie_word_embeddings": true, "scale_decoder_outputs": false)",
                  "scale_decoder_outputs"},
        {R"("tie_word_embeddings": false)", "tie_word_embeddings"}}) {
    const std::string text = told(says);
    EXPECT_NE(text.find("lm_head.weight is missing: the weights must hold it, of the shape [9, 4], "
                        "as config.json says that " +
                        std::string(key) +
                        " is false; where the head is shared.weight all the same, store a copy of "
                        "it under this name (got absent)"),
              std::string::npos)
        << text;
  }
  EXPECT_EQ(told(R"("tie_word_embeddings": true)"), "ok");
}

TEST(HfFolder, WhispersHeadHasANameOfItsOwn) {
  const auto told = [](const std::string& tied, bool has_head) {
    const std::string config = R"({"model_type": "whisper", "vocab_size": 9, "d_model": 4,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_layers": 1,
        "decoder_layers": 1, "decoder_start_token_id": 1, "tie_word_embeddings": )" +
                               tied + "}";
    const auto family = find_family("whisper");
    Tensors tensors;
    for (const ParameterInfo& info : family->plan(**family->parse_config(config), 1, 0)) {
      if (info.name == "proj_out.weight") continue;
      tensors[info.name] = {info.shape.extents().begin(), info.shape.extents().end()};
    }
    if (has_head) tensors["proj_out.weight"] = {9, 4};
    return load(Folder(config, tensors, /*tied=*/false).path()).to_string();
  };
  EXPECT_EQ(told("true", false), "ok");
  EXPECT_EQ(told("false", true), "ok");
  EXPECT_NE(told("false", false).find("proj_out.weight is missing"), std::string::npos);
  EXPECT_NE(told("true", true)
                .find("proj_out.weight must be equal to model.decoder.embed_tokens."
                      "weight"),
            std::string::npos)
      << told("true", true);
}

// transformers 5 does not tie a head that differs, and safetensors' save_model keeps it alone.
TEST(HfFolder, XlnetsHeadHasANameOfItsOwn) {
  const std::string table = "transformer.word_embedding.weight", head = "lm_loss.weight";
  const auto told = [&](const std::string& architecture, const std::string& left_out) {
    const std::string config = R"({"model_type": "xlnet", "vocab_size": 9, "d_model": 4,
        "n_head": 2, "n_layer": 1, "d_inner": 5, "num_labels": 3, "architectures": [")" +
                               architecture + R"("]})";
    const auto family = find_family("xlnet");
    Tensors tensors;
    for (const ParameterInfo& info : family->plan(**family->parse_config(config), 1, 0)) {
      tensors[info.name] = {info.shape.extents().begin(), info.shape.extents().end()};
    }
    tensors[head] = {9, 4};
    tensors.erase(left_out);
    return load(Folder(config, tensors, /*tied=*/false).path()).to_string();
  };
  EXPECT_EQ(told("XLNetLMHeadModel", head), "ok");
  EXPECT_EQ(told("XLNetLMHeadModel", table), "ok");
  const std::string both = told("XLNetLMHeadModel", "");
  EXPECT_NE(both.find("lm_loss.weight must be equal to transformer.word_embedding.weight"),
            std::string::npos)
      << both;
  EXPECT_EQ(told("XLNetForSequenceClassification", ""), "ok");
}

// The same of the encoders that learn masked tokens.
TEST(HfFolder, EncodersHeadsHaveNamesOfTheirOwn) {
  struct Named {
    const char *family, *architecture, *sizes, *head;
  };
  constexpr const char* kSizes =
      R"("hidden_size": 4, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 5,
        "max_position_embeddings": 6)";
  for (const Named& of :
       {Named{"bert", "BertForMaskedLM", kSizes, "cls.predictions.decoder.weight"},
        Named{"roberta", "RobertaForMaskedLM", kSizes, "lm_head.decoder.weight"},
        Named{"distilbert", "DistilBertForMaskedLM",
              R"("dim": 4, "n_heads": 2, "n_layers": 1, "hidden_dim": 5,
                 "max_position_embeddings": 6)",
              "vocab_projector.weight"}}) {
    SCOPED_TRACE(of.family);
    const std::string config = R"({"model_type": ")" + std::string(of.family) +
                               R"(", "vocab_size": 9, "architectures": [")" + of.architecture +
                               R"("], )" + of.sizes + "}";
    const auto family = find_family(of.family);
    Tensors tensors;
    std::string table;
    for (const ParameterInfo& info : family->plan(**family->parse_config(config), 1, 0)) {
      if (table.empty()) table = info.name;
      tensors[info.name] = {info.shape.extents().begin(), info.shape.extents().end()};
    }
    EXPECT_EQ(load(Folder(config, tensors, /*tied=*/false).path()).to_string(), "ok");
    tensors[of.head] = {9, 4};
    const std::string both = load(Folder(config, tensors, /*tied=*/false).path()).to_string();
    EXPECT_NE(both.find(std::string(of.head) + " must be equal to " + table), std::string::npos)
        << both;
    tensors.erase(table);
    EXPECT_EQ(load(Folder(config, tensors, /*tied=*/false).path()).to_string(), "ok");
  }
}

TEST(HfFolder, AnUntiedClassifierHasNoHeadOfTokens) {
  const std::string config = std::string(kConfig).insert(1, R"("tie_word_embeddings": false, )");
  Tensors tensors = all_tensors(true);
  EXPECT_NE(load(Folder(config, tensors).path()).to_string().find("lm_head.weight"),
            std::string::npos);
  tensors["score.weight"] = {3, 6};
  const Folder files(config, tensors);
  testing::run_ranks(1, [&](Rank& rank) {
    const HfFolder folder = *open_hf_folder(files.path());
    auto trunk = *folder.family->make_trunk(rank, folder.config);
    initialize_parameters(trunk->parameters(), 0);
    const std::vector<float> before = trunk->parameters().back().value.to_vector<float>();
    const Status status = load_hf_weights(folder, trunk->parameters());
    ASSERT_TRUE(status.ok()) << status.to_string();
    EXPECT_EQ(trunk->parameters().back().value.to_vector<float>(), before);
    const std::vector<float> norm = (trunk->parameters().end() - 2)->value.to_vector<float>();
    EXPECT_EQ(norm[1], norm[0] + 1);  // of the file
  });
}

TEST(HfFolder, ABadConfigNamesFileAndKey) {
  const Folder folder(R"({"model_type": "gpt2", "n_heads": 3})", all_tensors(true));
  const std::string message = load(folder.path()).to_string();
  EXPECT_NE(message.find("config.json"), std::string::npos);
  EXPECT_NE(message.find("n_heads"), std::string::npos);
  EXPECT_FALSE(load("/nonexistent/folder").ok());
}

TEST(HfFolder, AHeadOfAnotherShapeIsLeftAsItIs) {
  Tensors tensors = all_tensors(true);
  tensors["score.weight"] = {3, 6};
  const Folder files(kConfig, tensors);
  testing::run_ranks(1, [&](Rank& rank) {
    const HfFolder folder = *open_hf_folder(files.path());
    auto trunk = *folder.family->make_trunk(rank, folder.config);
    for (int64_t labels : {3, 4}) {
      const ParameterInfo info{.name = "t.score.weight", .shape = {labels, 6}};
      std::vector<Parameter> head = make_parameters(*rank.allocator, {&info, 1});
      initialize_parameters(head, 0);
      const HeadTensor tensor{"score.weight", &head[0]};
      ASSERT_TRUE(load_hf_weights(folder, trunk->parameters(), {&tensor, 1}).ok());
      EXPECT_EQ(head[0].value.data<float>()[5] == 5.0F, labels == 3);
    }
  });
}

TEST(HfFolder, NamesTheClassesOfItsHead) {
  const std::string start(kConfig, std::string_view(kConfig).size() - 1);
  const auto names = [&](const std::string& head, const std::string& map) {
    const Folder folder(
        start + ", \"architectures\": [\"" + head + "\"], \"id2label\": " + map + "}",
        all_tensors(true));
    return open_hf_folder(folder.path()).value().label_names;
  };
  using Names = std::vector<std::string>;
  const std::string classifier = "GPT2ForSequenceClassification";
  EXPECT_EQ(names(classifier, R"({"1": "pos", "0": "neg"})"), (Names{"neg", "pos"}));
  EXPECT_EQ(names(classifier, R"({"0": "neg", "1": "LABEL_1"})"), Names{"neg"});
  EXPECT_EQ(names(classifier, R"({"0": "LABEL_0", "1": "LABEL_1"})"), Names{});
  EXPECT_EQ(names(classifier, R"({"0": "neg", "2": "pos"})"), Names{});
  EXPECT_EQ(names(classifier, R"({"0": "neg", "1": "neg", "2": "pos"})"), Names{});
  EXPECT_EQ(names("GPT2LMHeadModel", R"({"0": "neg", "1": "pos"})"), Names{});
}

}  // namespace
}  // namespace weft
