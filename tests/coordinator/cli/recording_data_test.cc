// Folders of recordings on the command line: what is derived from them, and what is refused.
#include <sys/stat.h>

#include "proto/json/message_json.h"
#include "tests/coordinator/cli/served_cli.h"
#include "tests/worker/data/wave_file.h"

namespace weft::cli {
namespace {

const std::string kGolden = WEFT_SOURCE_DIR "/tests/fixtures/golden/whisper-speech/hf";

// Of seven tokens, as the model's vocabulary is small.
constexpr const char* kTokenizer = R"({"version": "1.0", "added_tokens": [
  {"id": 2, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
   "normalized": false, "special": true}], "normalizer": null,
  "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
                    "split": true}, "post_processor": null,
  "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
  "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": false, "byte_fallback": false,
            "vocab": {"<pad>": 0, "<unk>": 1, "</s>": 2, "a": 3, "b": 4, "c": 5, "▁": 6},
            "merges": []}})";

class RecordingFolder : public ServedCli {
 protected:
  void SetUp() override {
    ServedCli::SetUp();
    fs::create_directories(file("words"));
    fs::copy(kGolden, file("model"));  // of 32 frames
    write("model/preprocessor_config.json", R"({"chunk_length": 1, "hop_length": 500})");
    write("model/tokenizer.json", kTokenizer);
    write("words/1.wav", wave_file(std::vector<int16_t>(800, 100), 8000));
    write("words/2.wav", wave_file(std::vector<int16_t>(8000, 100), 8000));
    list("1.wav");
    write("plain.txt", "text");
  }
  void list(const std::string& name, const std::string& key = "transcription") {
    write("words/metadata.jsonl", R"({"file_name": ")" + name + R"(", ")" + key + R"(": "ab"})");
  }
  std::string file(const std::string& name) { return folder_ + "/" + name; }
  Outcome fine_tune(std::vector<std::string> line) {
    line.insert(line.begin(), {"fine-tune", file("model")});
    line.insert(line.end(), {"--dry-run", "--json"});
    return weft(line);
  }
};

TEST_F(RecordingFolder, TellsTheTask) {
  for (const std::vector<std::string>& line :
       {std::vector<std::string>{file("words")},
        {file("words"), "--task", "speech_recognition", "--target-length", "4"}}) {
    const Outcome done = fine_tune(line);
    ASSERT_EQ(done.exit, kExitOk) << done.err;
    proto::JobSpec spec;
    ASSERT_TRUE(read_json(done.out, spec, {.lenient = true}).ok());
    const proto::TaskSpec& task = spec.tasks(0);
    EXPECT_EQ(task.type(), proto::TASK_TYPE_SPEECH_RECOGNITION);
    EXPECT_EQ(task.data().format(), proto::DATA_FORMAT_AUDIO);
    EXPECT_EQ(task.data().target(), "transcription");
    EXPECT_EQ(spec.training().target_length(), line.size() > 1 ? 4 : 20);
  }
  list("1.wav", "sentence");
  const Outcome done = fine_tune({file("words"), "--text-pair", "sentence"});
  ASSERT_EQ(done.exit, kExitOk) << done.err;
  EXPECT_THAT(done.out, HasSubstr("\"target\": \"sentence\""));
}

TEST_F(RecordingFolder, WhatDoesNotGoWithRecordingsIsRefused) {
  const std::pair<std::vector<std::string>, const char*> wrong[] = {
      {{file("words"), "--sequence-length", "8"}, "tokens of a recording follow from the model"},
      {{file("words"), "--text-key", "a"}, "--text-key is for texts; the data is recordings"},
      {{file("words"), "--label-key", "a"}, "--label-key is for texts; the data is recordings"},
      {{file("words"), "--augment"}, "--augment is for images; this is speech_recognition"},
      {{file("words"), "--labels", "3"}, "--labels is for a classification"},
      {{file("words"), "--lora-rank", "2"}, "adapter must be left out with speech_recognition"},
      {{file("words"), "--task", "seq2seq"}, "must be one that whisper learns"},
      {{file("words"), "--text-pair", "a"}, "metadata.jsonl line 1: a is missing"},
      {{file("words"), "--validation", file("plain.txt")}, "metadata.jsonl must be in the folder"},
      {{file("plain.txt")}, "metadata.jsonl must be in the folder"}};
  for (const auto& [line, rule] : wrong) {
    const Outcome done = fine_tune(line);
    EXPECT_EQ(done.exit, kExitError) << rule;
    EXPECT_THAT(done.err, HasSubstr(rule));
  }
  list("gone.wav");
  EXPECT_THAT(fine_tune({file("words")}).err,
              HasSubstr("metadata.jsonl line 1: file_name must be a file of the folder"));
}

// Of a model that has learned nothing: each piece of a recording is written down, alone as beside
// others.
TEST_F(RecordingFolder, TranscribeWritesEachRecording) {
  write("long.wav", wave_file(std::vector<int16_t>(20000, 100), 8000));
  const std::vector<std::string> files{file("long.wav"), file("words/1.wav"), file("words/2.wav")};
  std::vector<std::string> lines;
  for (const char* at_once : {"1", "2", "8"}) {
    std::vector<std::string> line{"transcribe", file("model"), "--batch-size", at_once, "--json"};
    line.insert(line.end(), files.begin(), files.end());
    const Outcome done = weft(line);
    ASSERT_EQ(done.exit, kExitOk) << done.err;
    lines.push_back(done.out);
  }
  EXPECT_EQ(lines[0], lines[1]);
  EXPECT_EQ(lines[0], lines[2]);
  EXPECT_THAT(lines[0], HasSubstr("\"seconds\":2.5"));
  EXPECT_EQ(std::ranges::count(lines[0], '\n'), 3);
  const Outcome plain = weft({"transcribe", file("model"), files[1]});
  ASSERT_EQ(plain.exit, kExitOk) << plain.err;
  EXPECT_THAT(lines[0], HasSubstr("\"text\":\"" + plain.out.substr(0, plain.out.size() - 1)));
  write("words/metadata.jsonl",
        "{\"file_name\": \"2.wav\", \"transcription\": \"abc\"}\n"
        "{\"file_name\": \"1.wav\", \"transcription\": \"ba\"}\n");
  const Outcome measured = weft({"evaluate", file("model"), file("words"), "--json"});
  ASSERT_EQ(measured.exit, kExitOk) << measured.err;
  for (const char* part : {"\"wer\": ", "\"cer\": ", "\"rows\": 2", "\"labels\": 9",
                           "\"cut_recordings\": 0", "\"target_length\": 20"}) {
    EXPECT_THAT(measured.out, HasSubstr(part));
  }
}

// What the decoder keeps of the tokens before has the type that the model computes in.
TEST_F(RecordingFolder, TranscribesInEveryPrecision) {
  for (const char* precision : {"fp32", "bf16", "fp16"}) {
    const Outcome heard =
        weft({"transcribe", file("model"), file("words/1.wav"), "--precision", precision});
    EXPECT_EQ(heard.exit, kExitOk) << precision << ": " << heard.err;
    const Outcome measured =
        weft({"evaluate", file("model"), file("words"), "--json", "--precision", precision});
    ASSERT_EQ(measured.exit, kExitOk) << precision << ": " << measured.err;
    EXPECT_THAT(measured.out, HasSubstr(std::string("\"precision\": \"") + precision + "\""));
    EXPECT_THAT(measured.out, HasSubstr("\"wer\": "));
  }
}

TEST_F(RecordingFolder, TranscribeNamesWhatItCannotRead) {
  EXPECT_EQ(weft({"transcribe", file("model")}).exit, kExitUsage);
  EXPECT_THAT(weft({"transcribe", file("model"), file("none.wav")}).err, HasSubstr("none.wav"));
  EXPECT_THAT(weft({"transcribe", file("model"), file("words/1.wav"), file("plain.txt")}).err,
              HasSubstr("plain.txt: format must be a recording"));
  ASSERT_EQ(::mkfifo(file("pipe").c_str(), 0600), 0);
  EXPECT_THAT(weft({"transcribe", file("model"), file("pipe")}).err,
              HasSubstr("FILE is not a regular file"));
  const std::string writer = WEFT_SOURCE_DIR "/tests/fixtures/golden/t5-relu/hf";
  EXPECT_THAT(
      weft({"transcribe", writer, file("words/1.wav")}).err,
      HasSubstr("must be of type speech_recognition, as no other writes down what it hears"));
}

}  // namespace
}  // namespace weft::cli
