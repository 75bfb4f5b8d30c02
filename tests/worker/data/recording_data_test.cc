// Folders of recordings as data sets: what a sample is, its target, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "kernels/tensor/thread_pool.h"
#include "tests/worker/data/tokenizer_fixtures.h"
#include "tests/worker/data/wave_file.h"
#include "worker/data/check.h"
#include "worker/data/dataset.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr AudioLayout kLayout{20, 100};  // a second

std::string sound(int64_t samples, int64_t pitch) {
  std::vector<int16_t> levels;
  for (int64_t i = 0; i < samples; ++i) {
    levels.push_back(static_cast<int16_t>(i * pitch % 2000 - 1000));
  }
  return wave_file(levels, 8000);
}

class RecordingData : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/recordings-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    put("low.wav", sound(4000, 50));
    put("deep/high.wav", sound(9000, 300));
    put("unused.txt", "x");
    list(R"({"file_name": "low.wav", "transcription": "ab"})"
         "\n\n"
         R"({"file_name": "deep/high.wav", "transcription": "xyz", "speaker": 3})");
  }
  void TearDown() override { fs::remove_all(folder_); }
  void put(const std::string& name, const std::string& content) const {
    fs::create_directories(fs::path(folder_ + "/" + name).parent_path());
    std::ofstream(folder_ + "/" + name, std::ios::binary) << content;
  }
  void list(const std::string& rows) const { put("metadata.jsonl", rows); }
  static DatasetOptions options() {
    DatasetOptions options;
    options.kind = SampleKind::kSpeech;
    options.source.format = InputFormat::kAudio;
    options.source.pair_key = "transcription";
    options.sequence_length = 50;
    options.target_length = 6;
    options.audio = *AudioPreprocessor::parse("{}", kLayout);
    return options;
  }
  Result<std::shared_ptr<const Dataset>> load(const DatasetOptions& options) const {
    WEFT_ASSIGN_OR_RETURN(const auto files, input_files(folder_));
    return Dataset::load(files, options, *tokenizer_);
  }
  // By what looks before the start and by what loads, alike.
  std::string refused(const std::string& rows) const {
    list(rows);
    Labels labels("", 0, std::nullopt);
    const Status checked = check_data(*input_files(folder_), options(), true, labels);
    const auto set = load(options());
    EXPECT_FALSE(set) << rows;
    EXPECT_EQ(set ? "ok" : set.error().to_string(), checked.to_string());
    return checked.to_string();
  }
  std::string folder_;
  std::unique_ptr<Tokenizer> tokenizer_ = make_byte_tokenizer();  // 256 ends a text
};

TEST_F(RecordingData, ASampleIsARecordingAndItsText) {
  const auto set = *load(options());
  EXPECT_EQ(set->samples(), 2);
  EXPECT_EQ(set->rows_per_sample(), 1);
  EXPECT_EQ(set->tokens(), 2 * 50 + 3 + 4);
  EXPECT_EQ(set->cut_recordings(), 1);
  const TaskRows rows = set->range(0, 8);
  EXPECT_EQ(rows.rows, 2);
  EXPECT_EQ(rows.tokens, 50);
  EXPECT_EQ(rows.target_tokens, 6);
  EXPECT_TRUE(rows.ids.empty());
  EXPECT_THAT(rows.labels, ElementsAre('a', 'b', 256, kNoLabel, kNoLabel, kNoLabel, 'x', 'y', 'z',
                                       256, kNoLabel, kNoLabel));
  ASSERT_EQ(std::ssize(rows.features), 2 * kLayout.values());
  std::vector<float> features(static_cast<size_t>(kLayout.values()));
  for (const auto& [name, at] : {std::pair{"low.wav", 0}, {"deep/high.wav", 1}}) {
    std::ifstream in(folder_ + "/" + name, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    auto recording = *Recording::open(bytes, 16000);
    ASSERT_TRUE(*options().audio->write_features(recording, features.data()));
    EXPECT_TRUE(std::ranges::equal(
        features, std::span(rows.features)
                      .subspan(features.size() * static_cast<size_t>(at), features.size())))
        << name;
  }
}

TEST_F(RecordingData, ThePoolReadsTheSame) {
  ThreadPool pool(3);
  DatasetOptions shared = options();
  shared.pool = &pool;
  const std::vector<Visit> visits{{0, 1}, {0, 0}, {1, 1}};
  const TaskRows rows = (*load(shared))->rows(visits), alone = (*load(options()))->rows(visits);
  EXPECT_EQ(rows.features, alone.features);
  EXPECT_EQ(rows.labels, alone.labels);
  EXPECT_EQ(rows.labels[0], 'x');
}

TEST_F(RecordingData, TheDecodersFirstTokenIsLeftOutOfTargets) {
  const json file = with_ends(bpe_file(), "<|pad|>", 996, "<|endoftext|>", 995);
  tokenizer_ = weft::load(file);
  DatasetOptions how = options();
  how.target_length = 16;
  list(R"({"file_name": "low.wav", "transcription": "the king"})");
  const auto whole = (*load(how))->range(0, 1).labels;
  EXPECT_EQ(whole.front(), 996);
  how.start_id = 996;
  const auto without = (*load(how))->range(0, 1).labels;
  EXPECT_TRUE(std::equal(whole.begin() + 1, whole.begin() + 4, without.begin()));
  EXPECT_NE(without.front(), 996);
  how.start_id = 7;
  EXPECT_EQ((*load(how))->range(0, 1).labels, whole);
}

TEST_F(RecordingData, ATextThatIsTooLongIsCutBeforeItsEnd) {
  list(R"({"file_name": "low.wav", "transcription": "abcdefghij"})");
  const auto set = *load(options());
  EXPECT_THAT(set->range(0, 1).labels, ElementsAre('a', 'b', 'c', 'd', 'e', 256));
  EXPECT_EQ(set->dropped_tokens(0), 5);
}

TEST_F(RecordingData, BadRowsAreNamed) {
  const std::string good = R"({"file_name": "low.wav", "transcription": "a"})";
  put("noise.wav", "not a recording");
  put("none.wav", wave_file({}, 8000));
  put("../outside.wav", sound(100, 3));
  const std::pair<std::string, std::string> wrong[] = {
      {good + "\n[1]", "metadata.jsonl line 2: line must be one JSON object, as in {\"file_name\""},
      {good + "\n" + good,
       "metadata.jsonl line 2: file_name must not stand there twice: line 1 has it already"},
      {R"({"transcription": "a"})", "metadata.jsonl line 1: file_name is missing"},
      {R"({"file_name": "low.wav", "text": "a"})",
       "metadata.jsonl line 1: transcription is missing; the row's keys are: file_name, text"},
      {R"({"file_name": "low.wav", "transcription": ""})",
       "metadata.jsonl line 1: transcription must not be empty"},
      {R"({"file_name": "low.wav", "transcription": 3})", "transcription must be a string"},
      {R"({"file_name": 3, "transcription": "a"})", "file_name must be a string"},
      {R"({"file_name": "", "transcription": "a"})", "file_name must not be empty"},
      {R"({"file_name": "gone.wav", "transcription": "a"})",
       "metadata.jsonl line 1: file_name must be a file of the folder"},
      {R"({"file_name": "../outside.wav", "transcription": "a"})",
       "file_name must be a file of the folder"},
      {R"({"file_name": "/etc/passwd", "transcription": "a"})",
       "file_name must be a file of the folder"},
      {R"({"file_name": "noise.wav", "transcription": "a"})",
       "metadata.jsonl line 1: noise.wav: format must be a recording"},
      {R"({"file_name": "none.wav", "transcription": "a"})",
       "metadata.jsonl line 1: none.wav: recording must have at least a sample"}};
  for (const auto& [rows, rule] : wrong) EXPECT_THAT(refused(rows), HasSubstr(rule)) << rows;
  list("\n");
  EXPECT_THAT(load(options()).error().to_string(), HasSubstr("the data is empty: it has no row"));
  fs::remove(fs::path(folder_).parent_path() / "outside.wav");
  fs::remove(folder_ + "/metadata.jsonl");
  const auto set = load(options());
  ASSERT_FALSE(set);
  EXPECT_THAT(set.error().to_string(), HasSubstr("metadata.jsonl must be in the folder"));
}

TEST_F(RecordingData, ARecordingBrokenBehindItsHeaderIsNamedWhereItIsUsed) {
  const float samples[] = {0.5F, std::nanf("")};
  put("low.wav", float_wave_file(samples, 8000));
  const auto set = *load(options());
  try {
    set->range(0, 2);
    FAIL();
  } catch (const StatusError& error) {
    EXPECT_THAT(error.status().to_string(),
                HasSubstr("low.wav: recording must have finite samples only"));
  }
  fs::remove(folder_ + "/low.wav");
  EXPECT_THROW(set->range(0, 1), StatusError);
}

}  // namespace
}  // namespace weft
