// Log-mel spectrograms, as transformers' WhisperFeatureExtractor computes them: frames around each
// hop's sample (the signal mirrored at its ends), under a periodic Hann window; of their power
// spectra sums under triangles that are even on Slaney's mel scale, of equal area; of these
// log10, no more than 8 below the largest; (x + 4) / 4. The last frame is left out.
//
// In double: single precision would show in what is quiet beside something loud.
//
// Thread safety: const calls from any thread. Ownership: owns its matrices.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace weft {

struct LogMelSettings {
  int64_t bins = 80;     // mel filters
  int64_t rate = 16000;  // samples a second
  int64_t hop = 160;     // samples from a frame to the next
  int64_t window = 400;  // samples of a frame, even
};

class LogMel {
 public:
  explicit LogMel(const LogMelSettings& settings);
  int64_t frames(int64_t samples) const { return samples / settings_.hop; }
  // Writes frames(samples.size()) x bins. More samples than half a window.
  void write(std::span<const float> samples, float* features) const;

 private:
  LogMelSettings settings_;
  int64_t frequencies_;            // of a power spectrum
  std::vector<double> transform_;  // [window, 2 frequencies]: cosines, then sines, under the window
  std::vector<double> filters_;    // [frequencies, bins]
};

}  // namespace weft
