// Samples of a recording, as librosa.load gives them: a file that libsndfile reads (WAV, FLAC, Ogg,
// MP3 and others), its channels' mean, at another rate by libsoxr's high quality.
//
// Thread safety: one thread a Recording. Ownership: a Recording refers to the bytes, which outlive
// it.
// Invariant: what is kept does not grow with the recording. Errors tell the rule; the caller knows
// the file.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "proto/base/status.h"

namespace weft {

// What a file's header says.
struct RecordingHeader {
  int64_t samples = 0;  // of each channel
  int64_t channels = 0;
  int64_t rate = 0;  // samples a second
  double seconds() const { return static_cast<double>(samples) / static_cast<double>(rate); }
};

// Errors: a format that libsndfile does not know, no sample, a rate that no recording has.
Result<RecordingHeader> read_recording_header(std::string_view bytes);

class Recording {
 public:
  // rate: samples a second that are wanted. Errors: as of the header.
  static Result<Recording> open(std::string_view bytes, int64_t rate);
  Recording(Recording&&) noexcept;
  Recording& operator=(Recording&&) noexcept;
  ~Recording();
  const RecordingHeader& header() const;

  // The next samples; fewer than asked for only at the end, then 0. Errors: the file is broken
  // behind its header, a sample that is no finite number.
  Result<int64_t> read(std::span<float> samples);

 private:
  struct State;
  explicit Recording(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace weft
