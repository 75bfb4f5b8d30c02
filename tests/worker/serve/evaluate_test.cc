// Loading models with their heads, metrics on data and classes of texts.
#include "worker/serve/evaluate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "tests/testing/rank_runner.h"
#include "worker/serve/generate.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr int64_t kClasses = 3;

// Copies of models that transformers saved (40 positions, 128 tokens), with a tokenizer of letters.
class Evaluate : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/evaluate-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    for (const char* name : {"gpt2-causal", "gpt2-sequence"}) {
      fs::copy(std::string(WEFT_SOURCE_DIR "/tests/fixtures/golden/") + name + "/hf", at(name));
      fs::copy(WEFT_SOURCE_DIR "/tests/fixtures/letters_tokenizer.json",
               at(name) + "/tokenizer.json");
    }
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string at(const std::string& name) const { return folder_ + "/" + name; }

  // Changes the config.json of the classifier.
  void configure(const std::function<void(nlohmann::json&)>& change) const {
    const std::string path = at("gpt2-sequence") + "/config.json";
    nlohmann::json config = nlohmann::json::parse(std::ifstream(path));
    change(config);
    std::ofstream(path) << config.dump();
  }

  // Rows of `texts`, the i-th of the class i mod kClasses where they have labels.
  static std::shared_ptr<const Dataset> rows(const LoadedModel& model, SampleKind kind,
                                             const std::vector<std::string>& texts) {
    DatasetOptions options;
    options.kind = kind;
    options.source = {.format = InputFormat::kJsonl, .label_key = "label"};
    options.sequence_length = 12;
    options.labels = kClasses;
    const auto visit_all = [&](const std::function<Status(const Document&)>& visit) -> Status {
      for (size_t i = 0; i < texts.size(); ++i) {
        Document document;
        document.text = texts[i];
        document.labels = {static_cast<int64_t>(i) % kClasses};
        WEFT_RETURN_IF_ERROR(visit(document));
      }
      return {};
    };
    auto made = Dataset::load(visit_all, options, *model.tokenizer);
    EXPECT_TRUE(made) << made.error().to_string();
    return *made;
  }

  std::string folder_;
};

const std::vector<std::string> kTexts{
    "abc", "zebra", "aaaaaaaaaaaaaaaaaaaa", "q", "weft", "thread", "warp", "loomloom", "xyzzy"};

TEST_F(Evaluate, MetricsAreThoseOfTheProbabilities) {
  testing::run_ranks(1, [&](Rank& rank) {
    auto model = load_hf_folder(rank, at("gpt2-sequence"), "sequence_classification");
    ASSERT_TRUE(model) << model.error().to_string();
    const auto found =
        class_probabilities(rank, *model, *rows(*model, SampleKind::kUnlabeled, kTexts)).value();
    ASSERT_EQ(found.size(), kTexts.size());
    double loss = 0, hits = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_EQ(found[i].size(), size_t{kClasses});
      EXPECT_NEAR(std::accumulate(found[i].begin(), found[i].end(), 0.0), 1, 1e-12);
      loss -= std::log(found[i][i % kClasses]);
      hits += std::ranges::max_element(found[i]) - found[i].begin() ==
                      static_cast<std::ptrdiff_t>(i % kClasses)
                  ? 1
                  : 0;
    }
    const double count = static_cast<double>(kTexts.size());
    const auto data = rows(*model, SampleKind::kClassification, kTexts);
    for (const int64_t at_once : {1, 4, 100}) {
      int64_t told = 0;
      const auto metrics =
          evaluate(rank, *model, *data, at_once, [&](int64_t done, double) { told = done; })
              .value();
      EXPECT_NEAR(metrics.at("loss"), loss / count, 1e-6) << at_once;
      EXPECT_EQ(metrics.at("accuracy"), hits / count);
      EXPECT_EQ(metrics.at("labels"), count);
      EXPECT_EQ(told, data->samples());
    }
  });
}

TEST_F(Evaluate, WhatIsBehindTheSequenceLengthDoesNotCount) {
  testing::run_ranks(1, [&](Rank& rank) {
    auto model = load_hf_folder(rank, at("gpt2-sequence"), "");
    ASSERT_TRUE(model) << model.error().to_string();
    const auto data =
        rows(*model, SampleKind::kUnlabeled, {"abcdefghijkl", "abcdefghijklmnop", "abcdefghijk"});
    EXPECT_EQ(data->dropped_tokens(0), 0);
    EXPECT_EQ(data->dropped_tokens(1), 4);
    const auto found = class_probabilities(rank, *model, *data).value();
    EXPECT_EQ(found[0], found[1]);
    EXPECT_NE(found[0], found[2]);
  });
}

TEST_F(Evaluate, ScoresThatAreNoNumbersHaveNoClass) {
  testing::run_ranks(1, [&](Rank& rank) {
    auto model = load_hf_folder(rank, at("gpt2-sequence"), "");
    ASSERT_TRUE(model) << model.error().to_string();
    Parameter& head = model->task->parameters()[0];
    const auto size = static_cast<size_t>(head.value.elements());
    head.value.rebind(Tensor::from<float>(*rank.allocator, head.value.shape(),
                                          std::vector<float>(size, std::nanf(""))));
    const auto found =
        class_probabilities(rank, *model, *rows(*model, SampleKind::kUnlabeled, kTexts));
    ASSERT_FALSE(found);
    EXPECT_THAT(found.error().to_string(), HasSubstr("no finite numbers"));
    const auto metrics =
        evaluate(rank, *model, *rows(*model, SampleKind::kClassification, kTexts), 4);
    ASSERT_FALSE(metrics);
    EXPECT_THAT(metrics.error().to_string(), HasSubstr("no finite number"));
  });
}

// By the model's own logits, a token after the other through the cache of keys and values.
TEST_F(Evaluate, ALanguageModelPredictsEachTokenOfTheTextOnce) {
  testing::run_ranks(1, [&](Rank& rank) {
    auto model = load_hf_folder(rank, at("gpt2-causal"), "causal_lm");
    ASSERT_TRUE(model) << model.error().to_string();
    std::string text;
    for (int i = 0; i < 50; ++i) text += static_cast<char>('a' + i * i % 26);
    std::ofstream(at("text.txt")) << text;
    DatasetOptions options;
    options.sequence_length = 16;
    const auto data = Dataset::load({{at("text.txt"), "text.txt"}}, options, *model->tokenizer);
    ASSERT_TRUE(data) << data.error().to_string();
    const std::vector<int64_t> ids = *model->tokenizer->encode(text, false);
    double loss = 0;
    for (size_t start = 0; start + 1 < ids.size(); start += 15) {
      KeyValueCache cache;
      cache.capacity = 40;
      for (size_t i = start; i < start + 15 && i + 1 < ids.size(); ++i) {
        const auto logits = next_logits(rank, *model->trunk, cache, std::span(&ids[i], 1));
        double sum = 0;
        for (const float logit : logits) sum += std::exp(double{logit});
        loss += std::log(sum) - double{logits[static_cast<size_t>(ids[i + 1])]};
      }
    }
    const auto metrics = evaluate(rank, *model, **data, 3).value();
    EXPECT_EQ(metrics.at("labels"), 49);
    EXPECT_NEAR(metrics.at("loss"), loss / 49, 1e-5);
    EXPECT_NEAR(metrics.at("perplexity"), std::exp(loss / 49), 1e-3);
  });
}

TEST_F(Evaluate, HalfPrecisionIsThatOfTheModel) {
  testing::run_ranks(1, [&](Rank& rank) {
    const auto loss = [&](DType precision) {
      auto model = load_hf_folder(rank, at("gpt2-sequence"), "", precision);
      EXPECT_EQ(model->task->parameters()[0].value.dtype(), precision);
      return evaluate(rank, *model, *rows(*model, SampleKind::kClassification, kTexts), 4)
          .value()
          .at("loss");
    };
    const double single = loss(DType::kF32);
    for (const DType half : {DType::kBF16, DType::kF16}) {
      EXPECT_NE(loss(half), single);
      EXPECT_NEAR(loss(half), single, 0.02 * single);
    }
  });
}

TEST_F(Evaluate, ModelsWithoutAWholeHeadAreRefused) {
  testing::run_ranks(1, [&](Rank& rank) {
    const auto refusal = [&](const char* name, std::string_view type = "") {
      const auto model = load_hf_folder(rank, at(name), type);
      EXPECT_FALSE(model);
      return model ? Status() : model.error();
    };
    EXPECT_EQ(refusal("gpt2-causal", "sequence_classification").value(), "causal_lm");
    EXPECT_THAT(refusal("gpt2-sequence", "causal_lm").rule(), HasSubstr("generates text"));
    configure([](nlohmann::json& config) { config["problem_type"] = "regression"; });
    EXPECT_THAT(refusal("gpt2-sequence").field(), HasSubstr("problem_type"));
    configure([](nlohmann::json& config) {
      config.erase("problem_type");
      config["id2label"] = {{"0", "only"}};
    });
    EXPECT_THAT(refusal("gpt2-sequence").rule(), HasSubstr("at least 2"));
    configure([](nlohmann::json& config) { config["id2label"] = {{"0", "a"}, {"1", "b"}}; });
    EXPECT_THAT(refusal("gpt2-sequence").field(), HasSubstr("score.weight"));
    EXPECT_EQ(refusal("gpt2-sequence").value(), "another shape");
    fs::copy(at("gpt2-causal") + "/model.safetensors", at("gpt2-sequence"),
             fs::copy_options::overwrite_existing);
    EXPECT_EQ(refusal("gpt2-sequence").value(), "absent");
    fs::remove(at("gpt2-causal") + "/tokenizer.json");
    EXPECT_THAT(refusal("gpt2-causal").message(), HasSubstr("tokenizer.json"));
  });
}

}  // namespace
}  // namespace weft
