#include "worker/data/audio/recording.h"

#include <sndfile.h>
#include <soxr.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace weft {
namespace audio {

// A file in memory, as libsndfile reads it.
struct Bytes {
  std::string_view all;
  sf_count_t at = 0;
};

}  // namespace audio

namespace {

using audio::Bytes;

constexpr int64_t kRateMin = 100, kRateMax = 1'000'000;
constexpr int64_t kBlock = 4096;  // samples of each channel that are decoded at once

sf_count_t size_of(void* data) {
  return static_cast<sf_count_t>(static_cast<Bytes*>(data)->all.size());
}

sf_count_t seek(sf_count_t offset, int whence, void* data) {
  Bytes& bytes = *static_cast<Bytes*>(data);
  const sf_count_t size = size_of(data);
  const sf_count_t from = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? bytes.at : size;
  if (offset < -from || offset > size - from) return -1;
  return bytes.at = from + offset;
}

sf_count_t read_bytes(void* to, sf_count_t count, void* data) {
  Bytes& bytes = *static_cast<Bytes*>(data);
  const sf_count_t taken = std::clamp<sf_count_t>(count, 0, size_of(data) - bytes.at);
  std::memcpy(to, bytes.all.data() + bytes.at, static_cast<size_t>(taken));
  bytes.at += taken;
  return taken;
}

sf_count_t refuse_write(const void*, sf_count_t, void*) { return 0; }

sf_count_t tell(void* data) { return static_cast<Bytes*>(data)->at; }

// Opened for reading; null where it cannot be, and `message` says why.
SNDFILE* open_file(Bytes* bytes, SF_INFO* info, std::string* message) {
  SF_VIRTUAL_IO access{size_of, seek, read_bytes, refuse_write, tell};
  SNDFILE* const file = sf_open_virtual(&access, SFM_READ, info, bytes);
  if (file == nullptr) *message = sf_strerror(nullptr);
  return file;
}

Status broken(const std::string& message) {
  return Status::invalid("recording", "broken",
                         "must be a whole recording; its decoder says: " + message);
}

Status check_info(const SF_INFO& info) {
  if (info.frames <= 0) return Status::invalid("recording", "empty", "must have at least a sample");
  if (info.channels >= 1 && info.samplerate >= kRateMin && info.samplerate <= kRateMax) return {};
  return Status::invalid("recording", std::to_string(info.samplerate) + " Hz",
                         "must have a rate of " + std::to_string(kRateMin) + " to " +
                             std::to_string(kRateMax) + " samples a second");
}

}  // namespace

struct Recording::State {
  Bytes bytes;
  SNDFILE* file = nullptr;
  soxr_t resampler = nullptr;  // null: the rate is the wanted one
  RecordingHeader header;
  std::vector<float> decoded;  // [kBlock, channels]
  std::vector<float> mono;     // [kBlock], of which these are not yet taken:
  size_t first = 0, end = 0;
  bool ended = false;  // nothing more to decode

  ~State() {
    if (resampler != nullptr) soxr_delete(resampler);
    if (file != nullptr) sf_close(file);
  }
  Status decode();
};

// Fills `mono` anew, whose samples are all taken.
Status Recording::State::decode() {
  const sf_count_t count = sf_readf_float(file, decoded.data(), kBlock);
  if (sf_error(file) != SF_ERR_NO_ERROR) return broken(sf_strerror(file));
  first = 0;
  end = static_cast<size_t>(std::max<sf_count_t>(0, count));
  ended = end == 0;
  const auto channels = static_cast<size_t>(header.channels);
  for (size_t i = 0; i < end; ++i) {
    const float* const sample = decoded.data() + i * channels;
    float sum = 0;
    for (size_t channel = 0; channel < channels; ++channel) sum += sample[channel];
    mono[i] = sum / static_cast<float>(channels);
    if (!std::isfinite(mono[i])) {
      return Status::invalid("recording", "a sample that is no number",
                             "must have finite samples only");
    }
  }
  return {};
}

Recording::Recording(std::unique_ptr<State> state) : state_(std::move(state)) {}
Recording::Recording(Recording&&) noexcept = default;
Recording& Recording::operator=(Recording&&) noexcept = default;
Recording::~Recording() = default;

const RecordingHeader& Recording::header() const { return state_->header; }

Result<Recording> Recording::open(std::string_view bytes, int64_t rate) {
  auto state = std::make_unique<State>();
  state->bytes.all = bytes;
  SF_INFO info = {};
  std::string message = "an empty file";
  if (!bytes.empty()) state->file = open_file(&state->bytes, &info, &message);
  if (state->file == nullptr) {
    return fail(Status::invalid(
        "format", "another",
        "must be a recording, as WAV, FLAC, Ogg or MP3; libsndfile says: " + message));
  }
  WEFT_RETURN_IF_ERROR(check_info(info));
  state->header = {info.frames, info.channels, info.samplerate};
  state->decoded.resize(static_cast<size_t>(kBlock * info.channels));
  state->mono.resize(static_cast<size_t>(kBlock));
  if (info.samplerate != rate) {
    soxr_error_t error = nullptr;
    const soxr_io_spec_t single = soxr_io_spec(SOXR_FLOAT32_I, SOXR_FLOAT32_I);
    const soxr_quality_spec_t quality = soxr_quality_spec(SOXR_HQ, 0);
    state->resampler = soxr_create(info.samplerate, static_cast<double>(rate), /*num_channels=*/1,
                                   &error, &single, &quality, nullptr);
    if (error != nullptr) return fail(broken(soxr_strerror(error)));
  }
  return Recording(std::move(state));
}

Result<int64_t> Recording::read(std::span<float> samples) {
  State& state = *state_;
  size_t done = 0;
  while (done < samples.size()) {
    if (state.first == state.end && !state.ended) WEFT_RETURN_IF_ERROR(state.decode());
    size_t taken = std::min(state.end - state.first, samples.size() - done), made = taken;
    const float* const from = state.mono.data() + state.first;
    if (state.resampler == nullptr) {
      std::copy_n(from, taken, samples.data() + done);
    } else {
      // Without input it gives what it still has.
      taken = 0;
      const soxr_error_t error =
          soxr_process(state.resampler, state.ended ? nullptr : from, state.end - state.first,
                       &taken, samples.data() + done, samples.size() - done, &made);
      if (error != nullptr) return fail(broken(soxr_strerror(error)));
    }
    state.first += taken;
    done += made;
    if (state.ended && made == 0) break;
  }
  return static_cast<int64_t>(done);
}

Result<RecordingHeader> read_recording_header(std::string_view bytes) {
  WEFT_ASSIGN_OR_RETURN(const Recording recording, Recording::open(bytes, /*rate=*/16000));
  return recording.header();
}

}  // namespace weft
