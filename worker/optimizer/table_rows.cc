#include "worker/optimizer/table_rows.h"

#include <algorithm>
#include <cstring>

namespace weft {

bool rows_go_ahead(const Bucket& bucket, int64_t looked_up, int64_t width) {
  return looked_up > 0 && bucket.table == LookedUp::kByToken &&
         4 * looked_up * width <= bucket.entries[0].elements;
}

TableRows::TableRows(Rank& rank, const Bucket& bucket, const Tensor& values, int64_t width,
                     std::span<const int64_t> rows)
    : rank_(rank),
      values_(values),
      width_(width),
      rows_(rows.begin(), rows.end()),
      gathered_(Tensor::empty(*rank.allocator, {std::ssize(rows_) * width}, values.dtype())) {
  copy(/*from_values=*/true);
  std::vector<int64_t> counts;
  int64_t end = 0;
  for (const int64_t elements : bucket.counts) {
    counts.push_back(place_of(end + elements) - place_of(end));
    end += elements;
  }
  Communicator& replicas = rank.mesh.axis(Axis::kReplica);
  const Tensor own =
      slice_of(gathered_, place_of(bucket.own.start), counts[static_cast<size_t>(replicas.rank())]);
  pending_ = replicas.start(
      [own, all = gathered_, counts](Communicator& c) mutable { c.all_gather(own, all, counts); });
}

int64_t TableRows::place_of(int64_t element) const {
  const auto row = std::lower_bound(rows_.begin(), rows_.end(), element / width_);
  const bool inside = row != rows_.end() && *row == element / width_;
  return (row - rows_.begin()) * width_ + (inside ? element % width_ : 0);
}

void TableRows::finish() {
  pending_.wait();
  copy(/*from_values=*/false);
}

void TableRows::copy(bool from_values) const {
  const auto bytes = static_cast<size_t>(width_) * size_of(values_.dtype());
  auto* values = static_cast<std::byte*>(values_.raw());
  auto* gathered = static_cast<std::byte*>(gathered_.raw());
  rank_.pool->parallel_for(std::ssize(rows_), 16, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      std::byte* in_table = values + static_cast<size_t>(rows_[i]) * bytes;
      std::byte* here = gathered + i * bytes;
      std::memcpy(from_values ? here : in_table, from_values ? in_table : here, bytes);
    }
  });
}

}  // namespace weft
