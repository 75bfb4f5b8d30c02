#include "worker/data/augmentation.h"

#include <algorithm>
#include <cmath>

#include "worker/data/draw.h"

namespace weft {
namespace {

constexpr int kTries = 10;
constexpr double kLeastArea = 0.08, kNarrowest = 3.0 / 4, kWidest = 4.0 / 3;

enum Use : uint64_t { kArea = 1, kRatio, kLeft, kTop, kMirrored };

// The largest part in the middle whose sides are in a ratio that is allowed.
Box middle(int64_t width, int64_t height) {
  const double ratio = static_cast<double>(width) / static_cast<double>(height);
  Box box{0, 0, width, height};
  if (ratio < kNarrowest) box.height = std::lrint(static_cast<double>(width) / kNarrowest);
  if (ratio > kWidest) box.width = std::lrint(static_cast<double>(height) * kWidest);
  box.left = (width - box.width) / 2;
  box.top = (height - box.height) / 2;
  return box;
}

}  // namespace

Augmentation draw_augmentation(RandomKey key, Visit visit, int64_t width, int64_t height) {
  const auto stream = [&](Use use) {
    return key.derive(static_cast<uint64_t>(visit.epoch), static_cast<uint64_t>(visit.sample), use);
  };
  Augmentation drawn{middle(width, height), uniform_at(stream(kMirrored), 0) < 0.5F};
  const double whole = static_cast<double>(width) * static_cast<double>(height);
  for (uint64_t attempt = 0; attempt < kTries; ++attempt) {
    const double area_share = double{uniform_at(stream(kArea), attempt)};
    const double area = whole * (kLeastArea + (1 - kLeastArea) * area_share);
    const double ratio_share = double{uniform_at(stream(kRatio), attempt)};
    const double ratio = std::exp(std::lerp(std::log(kNarrowest), std::log(kWidest), ratio_share));
    const auto box_width = std::lrint(std::sqrt(area * ratio));
    const auto box_height = std::lrint(std::sqrt(area / ratio));
    if (box_width < 1 || box_width > width || box_height < 1 || box_height > height) continue;
    const auto place = [&](Use use, int64_t room) {
      return static_cast<int64_t>(below(stream(use), attempt, static_cast<uint64_t>(room) + 1));
    };
    drawn.box = {place(kLeft, width - box_width), place(kTop, height - box_height), box_width,
                 box_height};
    break;
  }
  return drawn;
}

}  // namespace weft
