// From a recording to what a speech model reads, as transformers' WhisperFeatureExtractor computes
// it: samples at the model's rate, a chunk's length of them, cut or padded, as log-mel features.
// Settings are those of a preprocessor_config.json.
//
// Thread safety: const calls from any thread. Ownership: values; copies share their matrices.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "worker/data/audio/log_mel.h"
#include "worker/data/audio/recording.h"
#include "worker/data/preprocessor_file.h"

namespace weft {

struct JsonMember;

// What a model's configuration says of its recordings.
struct AudioLayout {
  int64_t bins = 0;    // mel filters of a frame
  int64_t frames = 0;  // of a recording: two a position of the encoder
  int64_t values() const { return bins * frames; }
};

class AudioPreprocessor {
 public:
  // Its key in a processor_config.json.
  static constexpr std::string_view kPart = "feature_extractor";

  // The text of a preprocessor_config.json. Each key is honoured or refused by name; an absent one
  // has transformers' default, an absent chunk_length the seconds that the model's frames make.
  static Result<AudioPreprocessor> parse(std::string_view json, const AudioLayout& layout);
  static Result<AudioPreprocessor> parse(const JsonValue& settings, const AudioLayout& layout);
  // That of a model's folder; the defaults where it has none. Errors name the file.
  static Result<AudioPreprocessor> read(const std::string& folder, const AudioLayout& layout);
  // A preprocessor_config.json that transformers' AutoFeatureExtractor loads, of the same settings.
  std::string json() const;
  const AudioLayout& layout() const { return layout_; }
  int64_t rate() const { return settings_.rate; }                // samples a second
  int64_t samples() const { return seconds_ * settings_.rate; }  // of a chunk
  int64_t seconds() const { return seconds_; }                   // of a chunk

  // The recording's next chunk, as frames() x bins() numbers; its end is padded. False: there are
  // no more samples, and nothing is written. Errors: those of Recording::read.
  Result<bool> write_features(Recording& recording, float* features) const;

 private:
  AudioPreprocessor() = default;
  Status take(const JsonMember& member);    // a setting
  Status finish(const JsonMember* length);  // chunk_length, where it is given

  AudioLayout layout_;
  LogMelSettings settings_;
  int64_t seconds_ = 30;
  double padding_ = 0;  // a sample's value
  std::shared_ptr<const LogMel> log_mel_;
};

}  // namespace weft
