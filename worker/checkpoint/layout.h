// How shards of tensors become tiles of a manifest, and tiles become shards again. Pure index
// arithmetic: no chunk is read or written here.
//
// A tensor is seen as [outer, extent of dim, inner] around the dim that it is cut along, so a
// tile's row-major elements are runs of the whole tensor's row-major elements, and so are a
// shard's.
//
// Thread safety: free functions and values.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "proto/base/status.h"
#include "proto/checkpoint.pb.h"
#include "worker/models/parameter.h"

namespace weft::checkpoint {

// Elements [source, source + count) of one side are elements [target, target + count) of the other.
struct Run {
  int64_t source = 0, target = 0, count = 0;
};

// The box of `shape` that is [start, start + length) along `dim` and whole elsewhere.
struct Box {
  int dim = 0;
  Part part;
  int64_t elements(const Shape& shape) const;
};

// The boxes of a shard that count as its rank's: one a range, without what others count; a whole
// tensor is one box along dim 0. Empty ones are left out. A scalar is the box of a tensor of one
// element.
std::vector<Box> boxes_of(const Shape& shape, const Shard& shard);

// Runs that carry elements [first, first + count) of the tile (row-major within its box) into the
// local tensor of a shard (row-major). Runs outside the shard are left out.
void for_each_run(const Shape& shape, const Box& tile, const Shard& shard, int64_t first,
                  int64_t count, const std::function<void(const Run&)>& visit);

// Where the elements of one of a shard's boxes lie in the local tensor: runs from the box (source,
// row-major) to the local tensor (target).
void for_each_local_run(const Shape& shape, const Shard& shard, const Box& box,
                        const std::function<void(const Run&)>& visit);

// kCorruption with the tensor's name unless its tiles cover it exactly once, its chunks' sizes add
// up and its dtype is known.
Status check_entry(const proto::TensorEntry& entry);

Shape shape_of(const proto::TensorEntry& entry);

}  // namespace weft::checkpoint
