#include "worker/optimizer/buckets.h"

#include <algorithm>
#include <array>

#include "kernels/tensor/strided.h"

namespace weft {
namespace {

constexpr int64_t kAlignment = 32;  // elements: whole cache lines of half types too

int64_t aligned(int64_t elements) { return (elements + kAlignment - 1) / kAlignment * kAlignment; }

// Of the items up to this one that belong to its layer.
int64_t layer_elements(std::span<const BucketItem> items, size_t last) {
  int64_t sum = aligned(items[last].elements);
  for (size_t i = last; i > 0 && items[i].joined; --i) sum += aligned(items[i - 1].elements);
  return sum;
}

// The layer whose gradients are complete last, tables aside: its last item.
size_t last_complete(std::span<const BucketItem> items) {
  size_t index = 0;
  while (index < items.size() &&
         (items[index].looked_up != LookedUp::kNever || !items[index].trained)) {
    ++index;
  }
  while (index + 1 < items.size() && items[index + 1].joined) ++index;
  return index;
}

Part overlap(const Part& a, int64_t start, int64_t length) {
  const int64_t begin = std::max(a.start, start);
  const int64_t end = std::min(a.start + a.length, start + length);
  return {std::max<int64_t>(0, begin - start), std::max<int64_t>(0, end - begin)};
}

std::vector<BucketItem> items_of(std::span<const Parameter> parameters) {
  std::vector<BucketItem> items;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const ParameterInfo& info = parameters[i].info;
    const bool joined = i > 0 && same_layer(parameters[i - 1].info, info);
    items.push_back({info.unit, parameters[i].value.elements(), info.looked_up, joined,
                     info.keep_fp32, info.trained});
  }
  return items;
}

}  // namespace

Buckets::Buckets(std::span<const Parameter> parameters, int replicas, int replica,
                 int64_t bytes_max)
    : Buckets(items_of(parameters), replicas, replica, bytes_max) {}

Buckets::Buckets(std::span<const BucketItem> items, int replicas, int replica, int64_t bytes_max)
    : places_(items.size()) {
  const size_t last = last_complete(items);
  for (size_t left = items.size(); left > 0; --left) {
    const size_t index = left - 1;
    const auto [unit, elements, looked_up, joined, keep_fp32, trained] = items[index];
    const auto fits = [&](int64_t more) {
      return (buckets_.back().elements + more) * int64_t{sizeof(float)} <= bytes_max;
    };
    const bool begins = index + 1 == items.size() || !items[index + 1].joined;
    const bool full =
        !buckets_.empty() && !fits(begins ? layer_elements(items, index) : aligned(elements));
    if (buckets_.empty() || buckets_.back().unit != unit || full || index == last ||
        buckets_.back().trained != trained || looked_up != LookedUp::kNever ||
        buckets_.back().table != LookedUp::kNever) {
      buckets_.emplace_back().unit = unit;
      buckets_.back().table = looked_up;
      buckets_.back().trained = trained;
    }
    Bucket& bucket = buckets_.back();
    places_[index] = {buckets_.size() - 1, bucket.entries.size()};
    bucket.entries.push_back({index, bucket.elements, elements, {}, keep_fp32});
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

int64_t Bucket::place_of(int64_t element, DType precision) const {
  int64_t place = element;
  for (const Entry& entry : entries) {
    if (value_dtype(entry.keep_fp32, precision) == precision) continue;
    place += std::clamp<int64_t>(element - entry.offset, 0, aligned(entry.elements));
  }
  return place;
}

Part Bucket::own_places(DType precision) const {
  const int64_t start = place_of(own.start, precision);
  return {start, place_of(own.start + own.length, precision) - start};
}

std::vector<int64_t> Bucket::place_counts(DType precision) const {
  std::vector<int64_t> places;
  int64_t element = 0, place = 0;
  for (const int64_t count : counts) {
    element += count;
    places.push_back(place_of(element, precision) - place);
    place += places.back();
  }
  return places;
}

std::vector<char> sent_as_rows(const Buckets& buckets, const TableUse& use, int64_t width,
                               int replicas) {
  const int64_t rows = replicas * use.tokens * width;
  std::vector<char> sent;
  bool travel = false;  // those of the table of positions
  for (const Bucket& bucket : buckets.all()) {
    const bool table = bucket.table != LookedUp::kNever && use.tokens > 0;
    const int64_t most = bucket.entries[0].elements / (use.whole(bucket.table) ? 2 : 1);
    sent.push_back(table && rows <= most ? 1 : 0);
    travel |= sent.back() != 0 && bucket.table == LookedUp::kByPosition;
  }
  for (size_t b = 0; travel && b < sent.size(); ++b) {
    if (buckets.all()[b].table == LookedUp::kByToken) sent[b] = 1;
  }
  return sent;
}

Tensor slice_of(const Tensor& flat, int64_t start, int64_t length) {
  return flat.view({length}, std::array<int64_t, 1>{1}, start);
}

Tensor shaped_slice_of(const Tensor& flat, int64_t start, const Shape& shape) {
  const Strides strides = row_major_strides(shape);
  return flat.view(shape, std::span(strides).first(static_cast<size_t>(shape.dims())), start);
}

Tensor values_of(const Tensor& flat, int64_t first, const Bucket& bucket,
                 const Bucket::Entry& entry, Part part) {
  const DType precision = flat.dtype(), dtype = value_dtype(entry.keep_fp32, precision);
  if (part.length == 0) return Tensor::empty(flat.allocator(), {0}, dtype);
  const int64_t start = bucket.place_of(entry.offset + part.start, precision);
  const int64_t end = bucket.place_of(entry.offset + part.start + part.length, precision);
  return slice_of(flat, start - first, end - start).reinterpreted(dtype);
}

Tensor values_of(const Tensor& flat, const Bucket& bucket, const Bucket::Entry& entry,
                 const Shape& shape) {
  return shaped_slice_of(values_of(flat, 0, bucket, entry, {0, entry.elements}), 0, shape);
}

}  // namespace weft
