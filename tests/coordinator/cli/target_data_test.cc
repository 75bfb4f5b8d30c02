// Texts and targets on the command line: what is derived from a model that writes, and what is
// refused.
#include <nlohmann/json.hpp>
#include <tuple>

#include "proto/json/message_json.h"
#include "tests/coordinator/cli/served_cli.h"

namespace weft::cli {
namespace {

// Of seven tokens, as the model's vocabulary is small.
constexpr const char* kTokenizer = R"({"version": "1.0", "added_tokens": [
  {"id": 1, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
   "normalized": false, "special": true}], "normalizer": null,
  "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
                    "split": true},
  "post_processor": {"type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}},
               {"SpecialToken": {"id": "</s>", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
  "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
  "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": false, "byte_fallback": false,
            "vocab": {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "b": 4, "c": 5, "▁": 6},
            "merges": []}})";

const std::string kWriter = WEFT_SOURCE_DIR "/tests/fixtures/golden/t5-relu/hf";

class TargetData : public ServedCli {
 protected:
  void SetUp() override {
    ServedCli::SetUp();
    write("rows.jsonl", R"({"text": "a", "target": "b", "other": "c"})"
                        "\n");
    write("plain.txt", "text");
    write("tokenizer.json", kTokenizer);
  }
  Outcome fine_tune(const std::string& data, std::vector<std::string> line = {}) {
    line.insert(line.begin(), {"fine-tune", kWriter, folder_ + "/" + data});
    line.insert(line.end(), {"--tokenizer", folder_ + "/tokenizer.json", "--dry-run", "--json"});
    return weft(line);
  }
  static proto::JobSpec spec_of(const Outcome& done) {
    proto::JobSpec spec;
    EXPECT_EQ(done.exit, kExitOk) << done.err;
    EXPECT_TRUE(read_json(done.out, spec, {.lenient = true}).ok());
    return spec;
  }
};

TEST_F(TargetData, TheModelTellsTheTask) {
  const proto::JobSpec spec = spec_of(fine_tune("rows.jsonl"));
  ASSERT_EQ(spec.tasks_size(), 1);
  EXPECT_EQ(spec.tasks(0).type(), proto::TASK_TYPE_SEQ2SEQ);
  EXPECT_EQ(spec.tasks(0).data().format(), proto::DATA_FORMAT_JSONL);
  const proto::JobSpec named = spec_of(fine_tune("rows.jsonl", {"--text-pair", "other"}));
  EXPECT_EQ(named.tasks(0).data().target(), "other");
  EXPECT_FALSE(named.tasks(0).data().has_text_pair());
}

TEST_F(TargetData, TargetsHaveALengthOfTheirOwn) {
  EXPECT_EQ(spec_of(fine_tune("rows.jsonl")).training().target_length(), 128);
  const proto::JobSpec spec =
      spec_of(fine_tune("rows.jsonl", {"--sequence-length", "16", "--target-length", "5"}));
  EXPECT_EQ(spec.training().sequence_length(), 16);
  EXPECT_EQ(spec.training().target_length(), 5);
  EXPECT_THAT(fine_tune("rows.jsonl", {"--target-length", "1"}).err,
              HasSubstr("training.target_length must exceed the 1 tokens"));
}

TEST_F(TargetData, EvaluationCutsTargetsAtTheirLength) {
  fs::copy(kWriter, folder_ + "/t5");
  write("t5/tokenizer.json", kTokenizer);
  write("long.jsonl", "{\"text\": \"ab\", \"target\": \"a b c\"}\n");
  const auto evaluated = [&](std::vector<std::string> line) {
    line.insert(line.begin(), {"evaluate", folder_ + "/t5", folder_ + "/long.jsonl"});
    return weft(line);
  };
  // Of a target each letter is two tokens, with the space before it; its end is one.
  for (const auto& [length, labels, cut] :
       {std::tuple{"64", 7, 0}, std::tuple{"7", 7, 0}, std::tuple{"4", 4, 1}}) {
    const Outcome done = evaluated({"--target-length", length, "--json"});
    ASSERT_EQ(done.exit, kExitOk) << done.err;
    const nlohmann::json told = nlohmann::json::parse(done.out);
    EXPECT_EQ(told["labels"], labels) << length;
    EXPECT_EQ(told["cut_rows"], cut) << length;
    EXPECT_EQ(told["target_length"], std::stoi(length));
    EXPECT_EQ(told["sequence_length"], 1024);
  }
  const Outcome people = evaluated({"--target-length", "4", "--sequence-length", "9"});
  EXPECT_THAT(people.out, HasSubstr("9 tokens (as asked for), 4 of a target, fp32"));
  EXPECT_THAT(people.err, HasSubstr("longer than 9 tokens, or have a target of more than 4"));
  EXPECT_EQ(
      nlohmann::json::parse(evaluated({"--sequence-length", "9", "--json"}).out)["target_length"],
      9);
  EXPECT_THAT(evaluated({"--target-length", "1"}).err,
              HasSubstr("--target-length must exceed the 1 tokens"));
  EXPECT_THAT(evaluated({"--sequence-length", "1"}).err,
              HasSubstr("--sequence-length must exceed the 1 tokens"));
  EXPECT_EQ(evaluated({"--target-length", "0"}).exit, kExitUsage);
}

TEST_F(TargetData, WhatHasNoTargetsIsRefused) {
  EXPECT_THAT(fine_tune("plain.txt").err, HasSubstr("must be JSONL"));
  EXPECT_THAT(fine_tune("rows.jsonl", {"--text-pair", "none"}).err,
              HasSubstr("must have rows with the key 'none'"));
  EXPECT_THAT(fine_tune("rows.jsonl", {"--labels", "3"}).err,
              HasSubstr("this is seq2seq: the model is an encoder and a decoder"));
}

}  // namespace
}  // namespace weft::cli
