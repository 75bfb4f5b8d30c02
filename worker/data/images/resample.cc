#include "worker/data/images/resample.h"

#include <algorithm>
#include <cmath>

namespace weft {
namespace {

constexpr int kPrecisionBits = 32 - 8 - 2;  // Pillow's Resample.c

double triangle(double x) { return x < 1 ? 1 - x : 0; }

// Keys 1981 with a = -0.5.
double cubic(double x) {
  constexpr double kA = -0.5;
  if (x < 1) return ((kA + 2) * x - (kA + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * kA : 0;
}

// What each of `to` output pixels takes of the inputs from `first` on.
struct Weights {
  struct Run {
    int64_t first = 0;
    std::vector<int32_t> weights;
  };
  std::vector<Run> runs;
};

Weights weights_of(int64_t from, int64_t to, Resampling filter) {
  const bool bicubic = filter == Resampling::kBicubic;
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double stretch = std::max(scale, 1.0);
  const double reach = (bicubic ? 2.0 : 1.0) * stretch;
  Weights made;
  std::vector<double> shares;
  for (int64_t i = 0; i < to; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const auto first = std::max<int64_t>(0, static_cast<int64_t>(center - reach + 0.5));
    const auto end = std::min<int64_t>(from, static_cast<int64_t>(center + reach + 0.5));
    shares.clear();
    double sum = 0;
    for (int64_t x = first; x < end; ++x) {
      const double away = std::abs((static_cast<double>(x) - center + 0.5) * (1.0 / stretch));
      shares.push_back(bicubic ? cubic(away) : triangle(away));
      sum += shares.back();
    }
    Weights::Run& run = made.runs.emplace_back();
    run.first = first;
    for (const double share : shares) {
      const double fixed = (sum != 0 ? share / sum : share) * (1 << kPrecisionBits);
      run.weights.push_back(static_cast<int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
  }
  return made;
}

uint8_t rounded(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255));
}

// `count` sums side by side, of inputs `stride` apart.
void convolve(const Weights::Run& run, const uint8_t* from, int64_t stride, int64_t count,
              std::vector<int32_t>& sums, uint8_t* to) {
  sums.assign(static_cast<size_t>(count), 1 << (kPrecisionBits - 1));
  for (const int32_t weight : run.weights) {
    for (int64_t i = 0; i < count; ++i) sums[static_cast<size_t>(i)] += from[i] * weight;
    from += stride;
  }
  std::ranges::transform(sums, to, rounded);
}

Image across(const Image& image, int64_t width, Resampling filter) {
  const Weights weights = weights_of(image.width, width, filter);
  Image made{width, image.height, image.channels, {}};
  made.pixels.resize(static_cast<size_t>(width * made.height * made.channels));
  std::vector<int32_t> sums;
  uint8_t* to = made.pixels.data();
  for (int64_t y = 0; y < made.height; ++y) {
    for (const Weights::Run& run : weights.runs) {
      convolve(run, image.row(y) + run.first * image.channels, image.channels, image.channels, sums,
               to);
      to += image.channels;
    }
  }
  return made;
}

Image down(const Image& image, int64_t height, Resampling filter) {
  const Weights weights = weights_of(image.height, height, filter);
  Image made{image.width, height, image.channels, {}};
  const int64_t row_bytes = made.width * made.channels;
  made.pixels.resize(static_cast<size_t>(height * row_bytes));
  std::vector<int32_t> sums;
  for (int64_t y = 0; y < height; ++y) {
    const Weights::Run& run = weights.runs[static_cast<size_t>(y)];
    convolve(run, image.row(run.first), row_bytes, row_bytes, sums,
             made.pixels.data() + y * row_bytes);
  }
  return made;
}

}  // namespace

Image cropped(const Image& image, const Box& box) {
  Image made{box.width, box.height, image.channels, {}};
  made.pixels.reserve(static_cast<size_t>(box.width * box.height * image.channels));
  for (int64_t y = box.top; y < box.top + box.height; ++y) {
    const uint8_t* const row = image.row(y) + box.left * image.channels;
    made.pixels.insert(made.pixels.end(), row, row + box.width * image.channels);
  }
  return made;
}

Image resized(const Image& image, int64_t width, int64_t height, Resampling filter) {
  if (image.width == width && image.height == height) return image;
  if (image.width == width) return down(image, height, filter);
  if (image.height == height) return across(image, width, filter);
  const int64_t lower = image.height - height, narrower = image.width - width;
  const bool down_first = lower > 0 && lower > 2 * narrower;
  return down_first ? across(down(image, height, filter), width, filter)
                    : down(across(image, width, filter), height, filter);
}

void mirror(Image& image) {
  for (int64_t y = 0; y < image.height; ++y) {
    uint8_t* left = image.pixels.data() + y * image.width * image.channels;
    uint8_t* right = left + (image.width - 1) * image.channels;
    for (; left < right; left += image.channels, right -= image.channels) {
      std::swap_ranges(left, left + image.channels, right);
    }
  }
}

}  // namespace weft
