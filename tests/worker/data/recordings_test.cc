// Recordings: how files are read, resampled and turned into features, against what libsndfile's
// formats hold by themselves, tones, and what WhisperFeatureExtractor's steps give in float64; and
// what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numbers>
#include <string>
#include <vector>

#include "tests/worker/data/wave_file.h"
#include "worker/data/audio/preprocessor.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

constexpr AudioLayout kLayout{80, 100};  // a second

std::string recorded(const std::string& name) {
  std::ifstream in(WEFT_SOURCE_DIR "/tests/worker/data/fixtures/recordings/" + name,
                   std::ios::binary);
  EXPECT_TRUE(in) << name;
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<int16_t> pattern(int64_t count) {
  std::vector<int16_t> levels;
  for (int64_t i = 0; i < count; ++i) {
    levels.push_back(static_cast<int16_t>((i * i * 31 + i * 977) % 20011 - 10005));
  }
  return levels;
}

double tone_at(double hertz, double seconds) {
  return 0.5 * std::sin(2 * std::numbers::pi * hertz * seconds);
}

std::vector<int16_t> tone(double hertz, int64_t rate, int64_t count) {
  std::vector<int16_t> levels;
  for (int64_t i = 0; i < count; ++i) {
    const double value = tone_at(hertz, static_cast<double>(i) / static_cast<double>(rate));
    levels.push_back(static_cast<int16_t>(std::lround(32768 * value)));
  }
  return levels;
}

// In pieces of an uneven length, so that some end within a block.
std::vector<float> samples_of(std::string_view bytes, int64_t rate) {
  auto recording = Recording::open(bytes, rate);
  EXPECT_TRUE(recording) << recording.error().to_string();
  std::vector<float> all, piece(771);
  for (int64_t count = 1; count > 0;) {
    count = *recording->read(piece);
    all.insert(all.end(), piece.begin(), piece.begin() + count);
  }
  return all;
}

std::vector<float> features_of(std::string_view bytes, std::string_view settings = "{}") {
  const auto preprocessor = *AudioPreprocessor::parse(settings, kLayout);
  auto recording = *Recording::open(bytes, preprocessor.rate());
  std::vector<float> features(static_cast<size_t>(kLayout.values()));
  EXPECT_TRUE(*preprocessor.write_features(recording, features.data()));
  return features;
}

TEST(Recordings, SamplesAreThoseOfTheFile) {
  const std::vector<int16_t> levels = pattern(5000);
  const std::vector<float> samples = samples_of(wave_file(levels, 16000), 16000);
  ASSERT_EQ(samples.size(), levels.size());
  for (size_t i = 0; i < levels.size(); ++i) ASSERT_EQ(samples[i], levels[i] / 32768.0F) << i;
  const std::vector<float> packed = samples_of(recorded("pattern.flac"), 16000);
  ASSERT_EQ(packed.size(), 500U);
  for (size_t i = 0; i < packed.size(); ++i) ASSERT_EQ(packed[i], samples[i]) << i;
}

TEST(Recordings, FormatsWithLossAreReadToo) {
  for (const char* name : {"tone.ogg", "tone.mp3"}) {
    const std::vector<float> samples = samples_of(recorded(name), 16000);
    ASSERT_GE(samples.size(), 2000U) << name;
    for (size_t i = 0; i < 2000; ++i) {
      ASSERT_NEAR(samples[i], tone_at(500, static_cast<double>(i) / 16000), 0.03) << name << i;
    }
  }
}

TEST(Recordings, ChannelsBecomeTheirMean) {
  const std::vector<int16_t> levels{300, 100, -20, 7000, 1, 2, -3, 3};
  const std::string two = wave_file(levels, 16000, /*channels=*/2);
  const auto header = *read_recording_header(two);
  EXPECT_EQ(header.samples, 4);
  EXPECT_EQ(header.channels, 2);
  const std::vector<float> samples = samples_of(two, 16000);
  ASSERT_EQ(samples.size(), 4U);
  const double means[] = {200, 3490, 1.5, 0};
  for (size_t i = 0; i < 4; ++i) EXPECT_FLOAT_EQ(samples[i], static_cast<float>(means[i] / 32768));
}

TEST(Recordings, ATonesRateChangesAndNotItsPitch) {
  for (const int64_t rate : {8000, 11025, 44100, 48000}) {
    const std::vector<float> samples = samples_of(wave_file(tone(440, rate, rate), rate), 16000);
    ASSERT_EQ(samples.size(), 16000U) << rate;
    for (size_t i = 1000; i < 15000; ++i) {  // away from where it begins and ends at once
      ASSERT_NEAR(samples[i], tone_at(440, static_cast<double>(i) / 16000), 2e-4)
          << rate << " " << i;
    }
  }
  // What the lower rate cannot hold is gone.
  const std::vector<float> high = samples_of(wave_file(tone(11000, 48000, 48000), 48000), 16000);
  for (size_t i = 1000; i < 15000; ++i) ASSERT_NEAR(high[i], 0, 1e-4) << i;
}

TEST(Recordings, FeaturesAreThoseOfTransformersSteps) {
  struct Value {
    int64_t frame, bin;
    double value;
  };
  // numpy, in float64: the frames' spectra, mel_filter_bank, log10, the two last steps.
  constexpr Value kValues[] = {
      {0, 0, 0.670612736},    {0, 79, 0.604073162},   {1, 3, 0.563784099},   {5, 40, 0.558719806},
      {12, 17, 0.833247668},  {24, 0, 0.850818272},   {24, 60, 0.695329561}, {25, 5, 0.520422297},
      {26, 30, -0.294577172}, {27, 79, -0.985633791}, {99, 0, -0.985633791}};
  const std::vector<float> features = features_of(wave_file(pattern(4000), 16000));
  for (const Value& each : kValues) {
    const auto at = static_cast<size_t>(each.frame * kLayout.bins + each.bin);
    EXPECT_NEAR(features[at], each.value, 1e-7) << each.frame << " " << each.bin;
  }
}

TEST(Recordings, ATonesBinIsTheLoudest) {
  // Slaney's scale has 3 mel in 200 Hz up to 1000 Hz, and 80 bins share 45.2456 mel: 480 Hz, 7.2
  // mel and 12 turns a window, lies nearest the middle of the 13th.
  const std::vector<float> features = features_of(wave_file(tone(480, 16000, 16000), 16000));
  for (int64_t frame = 2; frame < 98; ++frame) {
    const auto first = features.begin() + frame * kLayout.bins;
    EXPECT_EQ(std::max_element(first, first + kLayout.bins) - first, 12) << frame;
  }
  const auto [least, most] = std::ranges::minmax_element(features);
  EXPECT_NEAR(*most - *least, 2, 1e-6);  // what is quieter by 8 or more is taken as if it were 8
}

TEST(Recordings, WhatIsLongerThanAChunkIsTheNextOne) {
  const auto preprocessor = *AudioPreprocessor::parse("{}", kLayout);
  std::vector<int16_t> levels = pattern(20000);
  const std::string bytes = wave_file(levels, 16000);
  auto recording = *Recording::open(bytes, 16000);
  std::vector<float> features(static_cast<size_t>(kLayout.values()));
  ASSERT_TRUE(*preprocessor.write_features(recording, features.data()));
  EXPECT_EQ(features, features_of(wave_file({levels.begin(), levels.begin() + 16000}, 16000)));
  ASSERT_TRUE(*preprocessor.write_features(recording, features.data()));
  EXPECT_EQ(features, features_of(wave_file({levels.begin() + 16000, levels.end()}, 16000)));
  EXPECT_FALSE(*preprocessor.write_features(recording, features.data()));
}

TEST(Recordings, BrokenFilesAreErrors) {
  const auto error_of = [](std::string_view bytes) {
    const auto header = read_recording_header(bytes);
    return header ? "ok" : header.error().to_string();
  };
  EXPECT_THAT(error_of(""), HasSubstr("format must be a recording, as WAV, FLAC, Ogg or MP3"));
  EXPECT_THAT(error_of("not a recording"), HasSubstr("format must be a recording"));
  EXPECT_THAT(error_of(wave_file({}, 16000)), HasSubstr("recording must have at least a sample"));
  EXPECT_THAT(error_of(wave_file({1}, 50)), HasSubstr("recording must have a rate of 100 to"));
  const std::string flac = recorded("pattern.flac"), ogg = recorded("tone.ogg");
  for (size_t size = 0; size < flac.size(); size += 7) {
    auto recording = Recording::open(std::string_view(flac).substr(0, size), 16000);
    std::vector<float> samples(1000);
    if (!recording) continue;
    const auto read = recording->read(samples);
    EXPECT_TRUE(!read || *read < 500) << size;
  }
  // Behind the header alone: of one that it cannot read libsndfile 1.2.0 keeps memory.
  for (size_t size = ogg.size() - 200; size < ogg.size(); size += 7) {
    auto recording = Recording::open(std::string_view(ogg).substr(0, size), 16000);
    ASSERT_TRUE(recording) << size;
    std::vector<float> samples(3000);
    const auto read = recording->read(samples);
    EXPECT_TRUE(!read || *read <= 2000) << size;
  }
  const float numbers[] = {0.5F, std::nanf(""), 0.25F};
  const std::string bad = float_wave_file(numbers, 16000);
  auto recording = *Recording::open(bad, 16000);
  std::vector<float> samples(3);
  const auto read = recording.read(samples);
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().to_string(), HasSubstr("must have finite samples only"));
}

TEST(Recordings, SettingsAreHonouredOrRefused) {
  const auto usual = *AudioPreprocessor::parse("{}", kLayout);
  EXPECT_EQ(usual.samples(), 16000);
  EXPECT_EQ(usual.rate(), 16000);
  const auto same = AudioPreprocessor::parse(usual.json(), kLayout);
  ASSERT_TRUE(same) << same.error().to_string();
  EXPECT_EQ(same->json(), usual.json());
  EXPECT_THAT(usual.json(), HasSubstr("\"feature_extractor_type\": \"WhisperFeatureExtractor\""));
  for (const char* fine :
       {R"({"feature_size": 80, "chunk_length": 1, "dither": 0.0, "return_attention_mask": true})",
        R"({"n_samples": 480000, "nb_max_frames": 3000, "mel_filters": [[0.5]], "n_fft": null})",
        R"({"sampling_rate": 8000, "hop_length": 80, "n_fft": 200, "do_normalize": false})",
        R"({"padding_side": "right", "padding_value": 0.5, "processor_class": "Any"})"}) {
    EXPECT_TRUE(AudioPreprocessor::parse(fine, kLayout)) << fine;
  }
  const std::string short_one = wave_file(pattern(4000), 16000);
  EXPECT_NE(features_of(short_one, R"({"padding_value": 0.5})"), features_of(short_one));
  const std::pair<const char*, const char*> wrong[] = {
      {"[]", "must be a JSON object"},
      {R"({"feature_size": 128})", "feature_size must be the model's num_mel_bins = 80"},
      {R"({"chunk_length": 30})",
       "chunk_length must make as many frames, chunk_length x sampling_rate / hop_length, as the "
       "model reads, 2 x max_source_positions = 100"},
      {R"({"chunk_length": 1.5})", "chunk_length must be an integer of 1 to"},
      {R"({"hop_length": 0})", "hop_length must be an integer of 1 to"},
      {R"({"hop_length": 100})", "max_source_positions must make whole seconds"},
      {R"({"n_fft": 401})", "n_fft must be even"},
      {R"({"n_fft": 8192})", "n_fft must be an integer of 1 to 4096"},
      {R"({"sampling_rate": "x"})", "sampling_rate must be an integer"},
      {R"({"sampling_rate": 100, "hop_length": 1})", "n_fft must be less than two chunks"},
      {R"({"padding_value": "x"})", "padding_value must be a number"},
      {R"({"padding_value": 1e39})", "padding_value must be a number that fp32 has"},
      {R"({"padding_side": "left"})", "padding_side must be right"},
      {R"({"dither": 0.1})", "dither must be off or left out"},
      {R"({"do_normalize": true})", "do_normalize must be off or left out"},
      {R"({"feature_extractor_type": "Wav2Vec2FeatureExtractor"})",
       "feature_extractor_type must be WhisperFeatureExtractor"},
      {R"({"sharpen": true})", "sharpen is no setting that is known here"}};
  for (const auto& [text, rule] : wrong) {
    const auto parsed = AudioPreprocessor::parse(text, kLayout);
    ASSERT_FALSE(parsed) << text;
    EXPECT_THAT(parsed.error().to_string(), HasSubstr(rule));
  }
}

// As WhisperProcessor.save_pretrained of transformers 5 writes it, and no other file.
TEST(Recordings, SettingsOfAProcessorGoBeforeAFileOfTheirOwn) {
  const std::string folder = ::testing::TempDir() + "/processor";
  std::filesystem::create_directories(folder);
  const auto put = [&](const char* name, const char* text) {
    std::ofstream(folder + "/" + name) << text;
  };
  const auto rate = [&] {
    const auto read = AudioPreprocessor::read(folder, kLayout);
    EXPECT_TRUE(read) << read.error().to_string();
    return read ? read->rate() : 0;
  };
  EXPECT_EQ(rate(), 16000);
  put("preprocessor_config.json", R"({"sampling_rate": 8000, "hop_length": 80, "n_fft": 200})");
  EXPECT_EQ(rate(), 8000);
  put("processor_config.json", R"({"processor_class": "WhisperProcessor"})");
  EXPECT_EQ(rate(), 8000);
  put("processor_config.json", R"({"processor_class": "WhisperProcessor",
      "feature_extractor": {"sampling_rate": 24000, "hop_length": 240,
                            "feature_extractor_type": "WhisperFeatureExtractor"}})");
  EXPECT_EQ(rate(), 24000);
  std::filesystem::remove(folder + "/preprocessor_config.json");
  EXPECT_EQ(rate(), 24000);
  put("processor_config.json", R"({"feature_extractor": {"feature_size": 8}})");
  const auto wrong = AudioPreprocessor::read(folder, kLayout);
  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().to_string(),
              HasSubstr("processor_config.json: feature_size must be the model's num_mel_bins"));
  put("processor_config.json", R"({"feature_extractor": )");
  ASSERT_FALSE(AudioPreprocessor::read(folder, kLayout));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace weft
