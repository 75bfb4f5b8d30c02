#include "worker/checkpoint/layout.h"

#include <algorithm>

namespace weft::checkpoint {
namespace {

struct Extents {
  int64_t outer = 1, middle = 1, inner = 1;
};

// A scalar counts as [1].
Extents around(const Shape& shape, int dim) {
  Extents extents;
  for (int i = 0; i < shape.dims(); ++i) {
    int64_t& factor = i < dim ? extents.outer : i == dim ? extents.middle : extents.inner;
    factor *= shape[i];
  }
  return extents;
}

}  // namespace

int64_t Box::elements(const Shape& shape) const {
  const Extents extents = around(shape, dim);
  return extents.outer * part.length * extents.inner;
}

std::vector<Box> boxes_of(const Shape& shape, const Shard& shard) {
  std::vector<Box> boxes;
  if (shape.elements() == 0) return boxes;
  if (shard.whole()) {
    boxes.push_back({0, {0, shape.dims() == 0 ? 1 : shape[0]}});
    return boxes;
  }
  for (const Part& part : shard.ranges) {
    // Of one range, where it is above 0.
    const Part counted{part.start + shard.repeated, part.length - shard.repeated};
    if (counted.length > 0) boxes.push_back({shard.dim, counted});
  }
  return boxes;
}

namespace {

// Runs of the whole tensor's elements [global, global + count), which are elements from `source` on
// of the source, into the shard's local tensor.
void into_shard(const Shape& shape, const Shard& shard, int64_t global, int64_t source,
                int64_t count, const std::function<void(const Run&)>& visit) {
  if (shard.whole()) {
    visit({source, global, count});
    return;
  }
  const Extents extents = around(shape, shard.dim);
  int64_t local_middle = 0;
  for (const Part& part : shard.ranges) local_middle += part.length;
  const int64_t row = extents.middle * extents.inner;
  while (count > 0) {
    const int64_t outer = global / row;
    const int64_t begin = global % row;
    const int64_t end = std::min(row, begin + count);
    int64_t before = 0;  // of the ranges before this one, in the local row
    for (const Part& part : shard.ranges) {
      const int64_t from = std::max(begin, part.start * extents.inner);
      const int64_t to = std::min(end, (part.start + part.length) * extents.inner);
      if (from < to) {
        const int64_t target =
            outer * local_middle * extents.inner + before + (from - part.start * extents.inner);
        visit({source + (from - begin), target, to - from});
      }
      before += part.length * extents.inner;
    }
    const int64_t done = end - begin;
    global += done;
    source += done;
    count -= done;
  }
}

}  // namespace

void for_each_run(const Shape& shape, const Box& tile, const Shard& shard, int64_t first,
                  int64_t count, const std::function<void(const Run&)>& visit) {
  const Extents extents = around(shape, tile.dim);
  const int64_t row = tile.part.length * extents.inner;
  if (row == 0) return;
  int64_t at = first;
  while (at < first + count) {
    const int64_t outer = at / row;
    const int64_t within = at % row;
    const int64_t length = std::min(row - within, first + count - at);
    const int64_t global = (outer * extents.middle + tile.part.start) * extents.inner + within;
    into_shard(shape, shard, global, at - first, length, visit);
    at += length;
  }
}

void for_each_local_run(const Shape& shape, const Shard& shard, const Box& box,
                        const std::function<void(const Run&)>& visit) {
  for_each_run(shape, box, shard, 0, box.elements(shape), visit);
}

Shape shape_of(const proto::TensorEntry& entry) {
  Shape shape;
  for (int64_t extent : entry.shape()) shape.push_back(extent);
  return shape;
}

Status check_entry(const proto::TensorEntry& entry) {
  const auto corrupt = [&](const std::string& what) {
    return Status(Code::kCorruption, "checkpoint tensor " + entry.name() + ": " + what);
  };
  if (entry.dtype() != "F32") return corrupt("dtype " + entry.dtype() + " is not F32");
  if (entry.shape_size() > Shape::kDimsMax) return corrupt("too many dimensions");
  int64_t elements = 1;
  for (int64_t extent : entry.shape()) {
    if (extent < 0 || (extent > 0 && elements > (int64_t{1} << 50) / extent)) {
      return corrupt("impossible shape");
    }
    elements *= extent;
  }
  const Shape shape = shape_of(entry);
  if (elements == 0) return entry.tiles_size() == 0 ? Status() : corrupt("tiles of nothing");
  std::vector<std::pair<int64_t, int64_t>> parts;
  for (const proto::Tile& tile : entry.tiles()) {
    if (tile.dim() != entry.tiles(0).dim()) return corrupt("tiles along different dims");
    if (tile.dim() < 0 || tile.dim() >= std::max(1, shape.dims())) return corrupt("no such dim");
    const int64_t extent = shape.dims() == 0 ? 1 : shape[tile.dim()];
    if (tile.start() < 0 || tile.length() < 1 || tile.start() > extent - tile.length()) {
      return corrupt("a tile outside the tensor");
    }
    const Box box{tile.dim(), {tile.start(), tile.length()}};
    int64_t bytes = 0;
    for (const proto::ChunkRef& chunk : tile.chunks()) {
      if (chunk.size() <= 0 || chunk.size() % 4 != 0) return corrupt("a chunk of a broken size");
      bytes += chunk.size();
    }
    if (bytes != box.elements(shape) * 4) return corrupt("chunks of the wrong size");
    parts.emplace_back(tile.start(), tile.length());
  }
  std::sort(parts.begin(), parts.end());
  int64_t covered = 0;
  for (const auto& [start, length] : parts) {
    if (start != covered) return corrupt("tiles overlap or leave a gap");
    covered += length;
  }
  const int64_t extent =
      shape.dims() == 0 || entry.tiles_size() == 0 ? 1 : shape[entry.tiles(0).dim()];
  if (covered != extent) return corrupt("tiles do not cover it");
  return {};
}

}  // namespace weft::checkpoint
