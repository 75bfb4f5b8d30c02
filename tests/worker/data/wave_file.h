// WAV files of a test's own samples (RIFF WAVE, PCM of 16 bits or IEEE floats, little endian).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace weft {

inline void add_number(uint64_t number, int bytes, std::string& out) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(number >> (8 * i) & 0xff);
}

inline std::string wave_bytes(const std::string& data, int format, int bits, int64_t rate,
                              int64_t channels) {
  const auto frame = static_cast<uint64_t>(channels * bits / 8);
  std::string out = "RIFF";
  add_number(36 + data.size(), 4, out);
  out += "WAVEfmt ";
  add_number(16, 4, out);
  add_number(static_cast<uint64_t>(format), 2, out);
  add_number(static_cast<uint64_t>(channels), 2, out);
  add_number(static_cast<uint64_t>(rate), 4, out);
  add_number(static_cast<uint64_t>(rate) * frame, 4, out);
  add_number(frame, 2, out);
  add_number(static_cast<uint64_t>(bits), 2, out);
  out += "data";
  add_number(data.size(), 4, out);
  return out + data;
}

// The channels of a sample stand together.
inline std::string wave_file(const std::vector<int16_t>& levels, int64_t rate,
                             int64_t channels = 1) {
  std::string data;
  for (const int16_t level : levels) add_number(static_cast<uint16_t>(level), 2, data);
  return wave_bytes(data, /*format=*/1, /*bits=*/16, rate, channels);
}

inline std::string float_wave_file(std::span<const float> samples, int64_t rate) {
  const std::string data(reinterpret_cast<const char*>(samples.data()), samples.size_bytes());
  return wave_bytes(data, /*format=*/3, /*bits=*/32, rate, /*channels=*/1);
}

}  // namespace weft
