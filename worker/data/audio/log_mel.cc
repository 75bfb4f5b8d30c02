#include "worker/data/audio/log_mel.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/cpu/gemm.h"

namespace weft {
namespace {

constexpr int64_t kFramesAtOnce = 256;
constexpr double kFrequencyMax = 8000;  // Hz, whatever the rate is
constexpr double kPowerMin = 1e-10;

// Slaney's scale (Auditory Toolbox, 1998): linear up to 1000 Hz, which is 15 mel, logarithmic
// above.
constexpr double kLinearMax = 1000, kLinearMels = 15;
double log_step() { return std::log(6.4) / 27; }

double mel_of(double hertz) {
  if (hertz < kLinearMax) return hertz * kLinearMels / kLinearMax;
  return kLinearMels + std::log(hertz / kLinearMax) / log_step();
}

double hertz_of(double mel) {
  if (mel < kLinearMels) return mel * kLinearMax / kLinearMels;
  return kLinearMax * std::exp(log_step() * (mel - kLinearMels));
}

// [frequencies, bins]: triangles from each border to the next but one, of area 1 over Hz.
std::vector<double> mel_filters(const LogMelSettings& settings, int64_t frequencies) {
  std::vector<double> borders;
  const double step = mel_of(kFrequencyMax) / static_cast<double>(settings.bins + 1);
  for (int64_t i = 0; i < settings.bins + 2; ++i) {
    borders.push_back(hertz_of(step * static_cast<double>(i)));
  }
  std::vector<double> filters;
  const int64_t highest = settings.rate / 2;  // Hz
  const double width = static_cast<double>(highest) / static_cast<double>(frequencies - 1);
  for (int64_t i = 0; i < frequencies; ++i) {
    const double hertz = static_cast<double>(i) * width;
    for (size_t bin = 0; bin < static_cast<size_t>(settings.bins); ++bin) {
      const double low = borders[bin], middle = borders[bin + 1], high = borders[bin + 2];
      const double height =
          std::min((hertz - low) / (middle - low), (high - hertz) / (high - middle));
      filters.push_back(std::max(0.0, height) * 2 / (high - low));
    }
  }
  return filters;
}

// Of a discrete Fourier transform of real numbers, each sample under the window.
std::vector<double> windowed_transform(int64_t window, int64_t frequencies) {
  std::vector<double> transform;
  const double turn = 2 * std::numbers::pi / static_cast<double>(window);
  for (int64_t n = 0; n < window; ++n) {
    const double weight = 0.5 - 0.5 * std::cos(turn * static_cast<double>(n));
    const auto angle = [&](int64_t k) { return turn * static_cast<double>(n * k % window); };
    for (int64_t k = 0; k < frequencies; ++k) transform.push_back(weight * std::cos(angle(k)));
    for (int64_t k = 0; k < frequencies; ++k) transform.push_back(weight * std::sin(angle(k)));
  }
  return transform;
}

// Place `at` of samples that are mirrored at both ends, which do not stand there twice.
int64_t mirrored(int64_t at, int64_t count) {
  if (at < 0) return -at;
  return at < count ? at : 2 * (count - 1) - at;
}

}  // namespace

LogMel::LogMel(const LogMelSettings& settings)
    : settings_(settings),
      frequencies_(settings.window / 2 + 1),
      transform_(windowed_transform(settings.window, frequencies_)),
      filters_(mel_filters(settings, frequencies_)) {}

void LogMel::write(std::span<const float> samples, float* features) const {
  const int64_t count = std::ssize(samples), frames = this->frames(count);
  const int64_t window = settings_.window, bins = settings_.bins;
  ThreadPool here(1);
  std::vector<double> part(static_cast<size_t>(kFramesAtOnce * window));
  std::vector<double> spectrum(static_cast<size_t>(kFramesAtOnce * 2 * frequencies_));
  std::vector<double> power(static_cast<size_t>(kFramesAtOnce * frequencies_));
  std::vector<double> logs(static_cast<size_t>(frames * bins));
  for (int64_t first = 0; first < frames; first += kFramesAtOnce) {
    const int64_t some = std::min(kFramesAtOnce, frames - first);
    double* to = part.data();
    for (int64_t frame = first; frame < first + some; ++frame) {
      const int64_t start = frame * settings_.hop - window / 2;
      for (int64_t i = start; i < start + window; ++i) {
        *to++ = samples[static_cast<size_t>(mirrored(i, count))];
      }
    }
    cpu::gemm<double, double>(here, some, 2 * frequencies_, window, {part.data(), window},
                              {transform_.data(), 2 * frequencies_}, spectrum.data(),
                              2 * frequencies_);
    for (int64_t frame = 0; frame < some; ++frame) {
      const double* const real = spectrum.data() + frame * 2 * frequencies_;
      const double* const imaginary = real + frequencies_;
      double* const out = power.data() + frame * frequencies_;
      for (int64_t k = 0; k < frequencies_; ++k) {
        out[k] = real[k] * real[k] + imaginary[k] * imaginary[k];
      }
    }
    cpu::gemm<double, double>(here, some, bins, frequencies_, {power.data(), frequencies_},
                              {filters_.data(), bins}, logs.data() + first * bins, bins);
  }
  for (double& value : logs) value = std::log10(std::max(value, kPowerMin));
  const double least = *std::ranges::max_element(logs) - 8;
  for (const double value : logs) {
    *features++ = static_cast<float>((std::max(value, least) + 4) / 4);
  }
}

}  // namespace weft
