#include "worker/optimizer/buckets.h"

#include <algorithm>
#include <array>

#include "kernels/tensor/strided.h"

namespace weft {
namespace {

constexpr int64_t kAlignment = 32;  // elements: whole cache lines of half types too

int64_t aligned(int64_t elements) { return (elements + kAlignment - 1) / kAlignment * kAlignment; }

Part overlap(const Part& a, int64_t start, int64_t length) {
  const int64_t begin = std::max(a.start, start);
  const int64_t end = std::min(a.start + a.length, start + length);
  return {std::max<int64_t>(0, begin - start), std::max<int64_t>(0, end - begin)};
}

std::vector<BucketItem> items_of(std::span<const Parameter> parameters) {
  std::vector<BucketItem> items;
  for (const Parameter& parameter : parameters) {
    const ParameterInfo& info = parameter.info;
    items.push_back({info.unit, parameter.value.elements(), info.looked_up});
  }
  return items;
}

}  // namespace

bool sends_rows(const TableUse& use, int64_t elements, int64_t width, int replicas) {
  return use.tokens > 0 && 2 * replicas * use.tokens * width <= elements;
}

Buckets::Buckets(std::span<const Parameter> parameters, int replicas, int replica,
                 int64_t bytes_max)
    : Buckets(items_of(parameters), replicas, replica, bytes_max) {}

Buckets::Buckets(std::span<const BucketItem> items, int replicas, int replica, int64_t bytes_max)
    : places_(items.size()) {
  for (size_t left = items.size(); left > 0; --left) {
    const size_t index = left - 1;
    const auto [unit, elements, looked_up] = items[index];
    const bool full = !buckets_.empty() &&
                      (buckets_.back().elements + elements) * int64_t{sizeof(float)} > bytes_max;
    if (buckets_.empty() || buckets_.back().unit != unit || full || looked_up ||
        buckets_.back().table) {
      buckets_.emplace_back().unit = unit;
      buckets_.back().table = looked_up;
    }
    Bucket& bucket = buckets_.back();
    places_[index] = {buckets_.size() - 1, bucket.entries.size()};
    bucket.entries.push_back({index, bucket.elements, elements, {}});
    bucket.elements += aligned(elements);
  }
  for (Bucket& bucket : buckets_) {
    for (int r = 0; r < replicas; ++r) {
      bucket.counts.push_back(part_of(bucket.elements, replicas, r).length);
    }
    bucket.own = part_of(bucket.elements, replicas, replica);
    for (Bucket::Entry& entry : bucket.entries) {
      entry.own = overlap(bucket.own, entry.offset, entry.elements);
    }
  }
}

Tensor slice_of(const Tensor& flat, int64_t start, int64_t length) {
  return flat.view({length}, std::array<int64_t, 1>{1}, start);
}

Tensor shaped_slice_of(const Tensor& flat, int64_t start, const Shape& shape) {
  const Strides strides = row_major_strides(shape);
  return flat.view(shape, std::span(strides).first(static_cast<size_t>(shape.dims())), start);
}

}  // namespace weft
