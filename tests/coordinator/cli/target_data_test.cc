// Texts and targets on the command line: what is derived from a model that writes, and what is
// refused.
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

TEST_F(TargetData, WhatHasNoTargetsIsRefused) {
  EXPECT_THAT(fine_tune("plain.txt").err, HasSubstr("must be JSONL"));
  EXPECT_THAT(fine_tune("rows.jsonl", {"--text-pair", "none"}).err,
              HasSubstr("must have rows with the key 'none'"));
  EXPECT_THAT(fine_tune("rows.jsonl", {"--labels", "3"}).err,
              HasSubstr("this is seq2seq: the model is an encoder and a decoder"));
}

}  // namespace
}  // namespace weft::cli
