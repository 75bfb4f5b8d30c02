#include "worker/serve/generate.h"
#include "worker/serve/chat_prompt.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/testing/rank_runner.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/serve/loaded_model.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = R"({"model_type": "gpt2", "n_embd": 24, "n_head": 3, "n_layer": 2,
    "vocab_size": 260, "n_positions": 16, "initializer_range": 0.3})";

constexpr const char* kGrouped = R"({"model_type": "llama", "hidden_size": 24, "vocab_size": 260,
    "num_attention_heads": 6, "num_key_value_heads": 2, "num_hidden_layers": 2,
    "intermediate_size": 40, "max_position_embeddings": 2000, "initializer_range": 0.3})";

std::unique_ptr<Trunk> make_model(Rank& rank, const std::string& config = kConfig) {
  const ModelFamily* family = find_family(*family_of_config(config));
  auto trunk = *family->make_trunk(rank, *family->parse_config(config));
  initialize_parameters(trunk->parameters(), 3);
  return trunk;
}

// Logits of every position, [T * V], computed at once.
std::vector<float> whole_logits(Rank& rank, Trunk& trunk, std::span<const int64_t> ids) {
  Context cx = rank.context();
  const auto count = static_cast<int64_t>(ids.size());
  TokenBatch batch;
  batch.ids = Tensor::from<int64_t>(*rank.allocator, {1, count}, ids);
  batch.positions = Tensor::empty(*rank.allocator, {1, count}, DType::kI64);
  for (int64_t i = 0; i < count; ++i) batch.positions.data<int64_t>()[i] = i;
  batch.tokens = count;
  batch.own_tokens = count;
  batch.layout = std::make_shared<const parallel::SequenceLayout>(
      parallel::SequenceLayout::contiguous(count, 1));
  batch.rows = 1;
  return trunk.token_logits(cx, batch, trunk.forward(cx, batch)).to_vector<float>();
}

// Whatever it is filled in, each piece's last logits are those of the whole.
void expect_logits_of_whole(Rank& rank, Trunk& trunk, std::span<const int64_t> ids,
                            const std::vector<size_t>& pieces, KeyValueCache& cache) {
  const std::vector<float> whole = whole_logits(rank, trunk, ids);
  size_t at = 0;
  for (size_t piece : pieces) {
    const std::vector<float> logits = next_logits(rank, trunk, cache, ids.subspan(at, piece));
    at += piece;
    ASSERT_EQ(logits.size(), 260U);
    for (size_t i = 0; i < 260; ++i) {
      ASSERT_NEAR(logits[i], whole[(at - 1) * 260 + i], 2e-5) << at << " " << i;
    }
  }
  EXPECT_EQ(cache.length, static_cast<int64_t>(ids.size()));
}

TEST(KeyValueCache, GivesTheLogitsOfTheWholeSequence) {
  testing::run_ranks(1, [](Rank& rank) {
    for (const char* config : {kConfig, kGrouped}) {
      auto trunk = make_model(rank, config);
      const std::vector<int64_t> ids{5, 99, 5, 200, 17, 3, 250, 42, 8, 9, 10};
      for (const std::vector<size_t>& pieces :
           {std::vector<size_t>{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {11}, {4, 1, 3, 3}}) {
        KeyValueCache cache;
        cache.capacity = 16;
        expect_logits_of_whole(rank, *trunk, ids, pieces, cache);
      }
    }
  });
}

TEST(KeyValueCache, GrowsWithTheText) {
  testing::run_ranks(1, [](Rank& rank) {
    auto trunk = make_model(rank, kGrouped);
    std::vector<int64_t> ids(700);
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int64_t>(i * i * 7 % 260);
    KeyValueCache cache;
    cache.capacity = 2000;
    expect_logits_of_whole(rank, *trunk, ids, {100, 156, 1, 300, 143}, cache);
    EXPECT_EQ(cache.keys[0].shape(), (Shape{1, 2, 1114, 4}));  // twice 557, the heads of keys
  });
}

TEST(Generate, GreedyFollowsTheUncachedModel) {
  testing::run_ranks(1, [](Rank& rank) {
    auto trunk = make_model(rank);
    const auto tokenizer = make_byte_tokenizer();
    const auto result = generate(rank, *trunk, *tokenizer, "abc",
                                 {.max_tokens = 8, .greedy = true, .stop_at_eos = false});
    ASSERT_TRUE(result) << result.error().to_string();
    std::vector<int64_t> ids{'a', 'b', 'c'};
    for (int64_t id : result->ids) {
      const std::vector<float> logits = whole_logits(rank, *trunk, ids);
      EXPECT_EQ(id, choose_token(std::span(logits).last(260), 257, {.greedy = true}, 0));
      ids.push_back(id);
    }
    EXPECT_EQ(result->ids.size(), 8U);
    EXPECT_EQ(result->prompt_tokens, 3);
    EXPECT_EQ(result->reason, FinishReason::kMaxTokens);
  });
}

TEST(Generate, RepeatsWithItsSeedAndStreamsTheSameText) {
  testing::run_ranks(1, [](Rank& rank) {
    auto trunk = make_model(rank);
    const auto tokenizer = make_byte_tokenizer();
    GenerateOptions options{.max_tokens = 40, .temperature = 2.0, .seed = 11, .stop_at_eos = false};
    std::string streamed;
    const auto first =
        generate(rank, *trunk, *tokenizer, "abc", options, [&](std::string_view piece) {
          streamed += piece;
          return true;
        });
    const auto second = generate(rank, *trunk, *tokenizer, "abc", options);
    ASSERT_TRUE(first && second);
    EXPECT_EQ(first->ids, second->ids);
    EXPECT_EQ(streamed, first->text);
    EXPECT_GT(first->restarts, 0);  // 43 tokens in 16 positions
    options.seed = 12;
    EXPECT_NE(generate(rank, *trunk, *tokenizer, "abc", options)->ids, first->ids);
  });
}

TEST(Generate, ALongPromptKeepsItsLastTokens) {
  testing::run_ranks(1, [](Rank& rank) {
    auto trunk = make_model(rank);
    const auto tokenizer = make_byte_tokenizer();
    const GenerateOptions options{.max_tokens = 1, .greedy = true, .stop_at_eos = false};
    const auto all = generate(rank, *trunk, *tokenizer, "0123456789abcdefghij", options);
    const auto last = generate(rank, *trunk, *tokenizer, "456789abcdefghij", options);
    ASSERT_TRUE(all && last);
    EXPECT_EQ(all->dropped_tokens, 4);
    EXPECT_EQ(last->dropped_tokens, 0);
    EXPECT_EQ(all->ids, last->ids);
  });
}

TEST(Generate, StopsWhereItIsToldTo) {
  testing::run_ranks(1, [](Rank& rank) {
    auto trunk = make_model(rank);
    auto tokenizer = make_byte_tokenizer();
    GenerateOptions options{.max_tokens = 8, .greedy = true, .stop_at_eos = false};
    const auto free = generate(rank, *trunk, *tokenizer, "abc", options);
    ASSERT_TRUE(free);
    tokenizer->set_eos_id(free->ids[2]);
    options.stop_at_eos = true;
    const auto ended = generate(rank, *trunk, *tokenizer, "abc", options);
    ASSERT_TRUE(ended);
    EXPECT_EQ(ended->reason, FinishReason::kEos);
    EXPECT_LE(ended->ids.size(), 2U);
    options.stop_at_eos = false;
    const auto stopped =
        generate(rank, *trunk, *tokenizer, "abc", options, [](std::string_view) { return false; });
    EXPECT_EQ(stopped->reason, FinishReason::kStopped);
  });
}

TEST(Generate, StopsAtAnyOfTheModelsEndsIfTheyAreOfItsTokenizer) {
  testing::run_ranks(1, [](Rank& rank) {
    const auto tokenizer = make_byte_tokenizer();
    const auto with_ends = [&](const std::string& ends) {
      const std::string config = std::string(kConfig).insert(1, "\"eos_token_id\": " + ends + ", ");
      return *generate(rank, *make_model(rank, config), *tokenizer, "abc",
                       {.max_tokens = 8, .greedy = true});
    };
    const Generated free = with_ends("null");
    ASSERT_GT(free.ids.size(), 2U);
    const std::string third = std::to_string(free.ids[2]);
    const std::string own = std::to_string(*tokenizer->eos_id());
    EXPECT_EQ(with_ends("[" + third + "]").ids, free.ids);
    const Generated ended = with_ends("[" + own + ", " + third + "]");
    EXPECT_EQ(ended.reason, FinishReason::kEos);
    EXPECT_LE(ended.ids.size(), 2U);
  });
}

TEST(Generate, AnEmptyPromptStartsFromTheEndOfText) {
  testing::run_ranks(1, [](Rank& rank) {
    auto trunk = make_model(rank);
    const auto tokenizer = make_byte_tokenizer();
    const auto result = generate(rank, *trunk, *tokenizer, "", {.max_tokens = 2});
    ASSERT_TRUE(result) << result.error().to_string();
    EXPECT_EQ(result->prompt_tokens, 1);
    EXPECT_FALSE(generate(rank, *trunk, *tokenizer, "a", {.max_tokens = -2}));
  });
}

TEST(Generate, APromptStartsAsTheTextsOfTraining) {
  testing::run_ranks(1, [](Rank& rank) {
    auto trunk = make_model(rank);
    nlohmann::json file = nlohmann::json::parse(byte_tokenizer_json());
    file["pre_tokenizer"]["use_regex"] = true;  // which makes it a BPE
    const auto plain = *load_tokenizer_json(file.dump());
    file["post_processor"] = nlohmann::json::parse(R"({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                   {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {"<|endoftext|>": {"ids": [256]}}})");
    const auto prefixed = *load_tokenizer_json(file.dump());
    const GenerateOptions options{.max_tokens = 4, .greedy = true, .stop_at_eos = false};
    const auto from = [&](const Tokenizer& tokenizer, const char* prompt) {
      return *generate(rank, *trunk, tokenizer, prompt, options);
    };
    const Generated expected = from(*plain, "<|endoftext|>abc");
    EXPECT_NE(from(*plain, "abc").ids, expected.ids);
    for (const char* prompt : {"abc", "<|endoftext|>abc"}) {
      EXPECT_EQ(from(*prefixed, prompt).ids, expected.ids) << prompt;
      EXPECT_EQ(from(*prefixed, prompt).prompt_tokens, 4);
    }
    EXPECT_EQ(from(*prefixed, "").ids, from(*plain, "<|endoftext|>").ids);
  });
}

// Characters are bytes, but for the space; ids 0 to 2 are special.
std::unique_ptr<Tokenizer> make_fallback_tokenizer() {
  nlohmann::json file = nlohmann::json::parse(R"({"version": "1.0", "added_tokens": [],
      "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"},
      "post_processor": {"type": "TemplateProcessing",
          "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A"}}],
          "special_tokens": {"<s>": {"ids": [1]}}},
      "decoder": {"type": "Sequence", "decoders": [
          {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
          {"type": "ByteFallback"}, {"type": "Fuse"},
          {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
      "model": {"type": "BPE", "byte_fallback": true, "vocab": {"▁": 259}, "merges": []}})");
  for (const char* name : {"<unk>", "<s>", "</s>"}) {
    const size_t id = file["added_tokens"].size();
    file["added_tokens"].push_back(
        {{"id", id}, {"content", name}, {"special", true}, {"normalized", false}});
    file["model"]["vocab"][name] = id;
  }
  for (int byte = 0; byte < 256; ++byte) {
    std::array<char, 8> name = {};
    std::snprintf(name.data(), name.size(), "<0x%02X>", static_cast<unsigned>(byte));
    file["model"]["vocab"][name.data()] = byte + 3;
  }
  auto tokenizer = load_tokenizer_json(file.dump());
  EXPECT_TRUE(tokenizer) << tokenizer.error().to_string();
  return std::move(*tokenizer);
}

// What is generated keeps the space that it begins with, where it stands behind a text; bytes are
// handed on once no byte behind them can make them no character.
TEST(Generate, TextOfByteTokensGoesOnBehindThePrompt) {
  testing::run_ranks(1, [](Rank& rank) {
    auto trunk = make_model(rank, kGrouped);
    const auto tokenizer = make_fallback_tokenizer();
    constexpr DecodeOptions kShown{.skip_special = true};
    bool spaces = false;
    for (uint64_t seed = 0; seed < 60 || (!spaces && seed < 6000); ++seed) {
      const std::string prompt = seed % 2 == 0 ? "" : "a ";
      const GenerateOptions options{
          .max_tokens = seed < 60 ? 30 : 1, .seed = seed, .stop_at_eos = false};
      std::string streamed;
      const auto result =
          generate(rank, *trunk, *tokenizer, prompt, options, [&](std::string_view piece) {
            EXPECT_FALSE(piece.empty());
            streamed += piece;
            return true;
          });
      ASSERT_TRUE(result) << result.error().to_string();
      EXPECT_EQ(streamed, result->text);
      std::vector<int64_t> ids = *tokenizer->encode(prompt, true);
      const size_t before = tokenizer->decode(ids, kShown).size();
      ids.insert(ids.end(), result->ids.begin(), result->ids.end());
      EXPECT_EQ(result->text, tokenizer->decode(ids, kShown).substr(before));
      spaces = spaces || (result->text.starts_with(' ') && !prompt.empty());
    }
    EXPECT_TRUE(spaces);  // a draw that begins with one
  });
}

TEST(ChatPrompt, IsWhatTheTemplateRendersAndEndsWithTheTurn) {
  const auto tokenizer = load_tokenizer_json(byte_tokenizer_json());
  ASSERT_TRUE(tokenizer);
  EXPECT_FALSE(chat_prompt(**tokenizer, "", "Hi"));
  (*tokenizer)
      ->set_files(
          {{"chat_template.jinja",
            "{% for m in messages %}{{ '[' ~ m.role ~ ']' ~ m.content ~ '<|endoftext|>\\n' }}"
            "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"}});
  const auto alone = chat_prompt(**tokenizer, "", "Hi");
  ASSERT_TRUE(alone) << alone.error().to_string();
  EXPECT_EQ(alone->text, "[user]Hi<|endoftext|>\n[assistant]");
  const auto with = chat_prompt(**tokenizer, "Be brief.", "Hi");
  ASSERT_TRUE(with);
  EXPECT_EQ(with->text, "[system]Be brief.<|endoftext|>\n" + alone->text);
  EXPECT_FALSE(chat_prompt(**tokenizer, "", "\xff"));
}

TEST(LoadHfFolder, LoadsWhatAnExportHolds) {
  const fs::path path = fs::temp_directory_path() / ("weft-serve-" + std::to_string(::getpid()));
  fs::create_directories(path);
  testing::run_ranks(1, [&](Rank& rank) {
    auto trunk = make_model(rank);
    std::vector<SafetensorSpec> specs;
    std::map<std::string, const Parameter*> by_name;
    for (const Parameter& parameter : trunk->parameters()) {
      const auto extents = parameter.info.shape.extents();
      specs.push_back({parameter.info.name, {extents.begin(), extents.end()}});
      by_name[parameter.info.name] = &parameter;
    }
    const Status written =
        write_safetensors((path / "model.safetensors").string(), specs,
                          [&](const SafetensorSpec& spec, const FloatSink& write) {
                            return write(by_name.at(spec.name)->value.to_vector<float>());
                          });
    ASSERT_TRUE(written.ok()) << written.to_string();
    std::ofstream(path / "config.json") << find_family("gpt2")->config_json(trunk->config(), {});
    EXPECT_FALSE(load_hf_folder(rank, path.string(), "causal_lm"));  // no tokenizer.json
    for (const TokenizerFile& file : byte_tokenizer_files()) {
      std::ofstream(path / file.name, std::ios::binary) << file.content;
    }
    Result<LoadedModel> model = load_hf_folder(rank, path.string(), "causal_lm");
    ASSERT_TRUE(model) << model.error().to_string();
    const GenerateOptions options{.max_tokens = 6, .greedy = true, .stop_at_eos = false};
    const auto tokenizer = make_byte_tokenizer();
    EXPECT_EQ(generate(rank, *model->trunk, *model->tokenizer, "abc", options)->ids,
              generate(rank, *trunk, *tokenizer, "abc", options)->ids);
    EXPECT_EQ(generate(rank, *model->trunk, *model->tokenizer, "a\xff", options)->ids,
              generate(rank, *trunk, *tokenizer, "a\xff", options)->ids);
    ExportHead head;
    head.labels = 2;
    std::ofstream(path / "config.json") << find_family("gpt2")->config_json(trunk->config(), head);
    model = load_hf_folder(rank, path.string(), "causal_lm");
    ASSERT_FALSE(model);
    EXPECT_EQ(model.error().value(), "sequence_classification");
  });
  fs::remove_all(path);
}

}  // namespace
}  // namespace weft
