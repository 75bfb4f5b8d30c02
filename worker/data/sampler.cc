#include <limits>
#include <numeric>
#include <utility>

#include "proto/base/check.h"
#include "worker/data/dataset.h"
#include "worker/data/draw.h"

namespace weft {
Sampler::Sampler(int64_t samples, bool shuffle, RandomKey key)
    : samples_(samples), shuffle_(shuffle), key_(key) {
  WEFT_CHECK(samples >= 1 && samples <= std::numeric_limits<uint32_t>::max(), "{} samples",
             samples);
}

void Sampler::arrange(int64_t epoch) {
  if (!shuffle_ || arranged_ == epoch) return;
  order_.resize(static_cast<size_t>(samples_));
  std::iota(order_.begin(), order_.end(), uint32_t{0});
  const RandomKey key = key_.derive(static_cast<uint64_t>(epoch) + 1);
  for (size_t i = order_.size() - 1; i > 0; --i) {
    std::swap(order_[i], order_[below(key, i, i + 1)]);
  }
  arranged_ = epoch;
}

std::vector<Visit> Sampler::next(int64_t count) {
  std::vector<Visit> samples;
  samples.reserve(static_cast<size_t>(count));
  while (static_cast<int64_t>(samples.size()) < count) {
    if (position_.sample == samples_) position_ = {position_.epoch + 1, 0};
    arrange(position_.epoch);
    const auto at = static_cast<size_t>(position_.sample++);
    samples.push_back({position_.epoch, shuffle_ ? order_[at] : static_cast<int64_t>(at)});
  }
  return samples;
}

Status Sampler::restore(SamplerPosition position) {
  if (position.epoch < 0 || position.sample < 0 || position.sample > samples_) {
    return Status::invalid(
        "position",
        "epoch " + std::to_string(position.epoch) + " sample " + std::to_string(position.sample),
        "the data has " + std::to_string(samples_) +
            " samples: resume with the data that the checkpoint was trained on");
  }
  position_ = position;
  return {};
}

}  // namespace weft
