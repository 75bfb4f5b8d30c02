// How a kernel walks over arrays of one shape with strides of their own: broadcast (stride 0),
// permuted, sliced.
//
// Thread safety: values. Invariants: 1. dim 0 is the innermost. 2. dims that all arrays walk over
// as if they were one are one. 3. extents and strides are in elements, 64 bits.
#pragma once

#include <cstdint>
#include <span>

namespace weft::cuda {

constexpr int kWalkDims = 8;

template <int kArrays>
struct Walk {
  int dims = 0;
  int64_t elements = 1;
  int64_t extent[kWalkDims] = {};
  int64_t stride[kArrays][kWalkDims] = {};
  // One dim that no array skips anything of.
  bool contiguous() const {
    bool tight = dims <= 1;
    for (int array = 0; array < kArrays && dims == 1; ++array) {
      tight = tight && stride[array][0] == 1;
    }
    return tight;
  }
};

// From extents and strides with the outermost dim first. At most kWalkDims dims of extent > 1 that
// cannot be joined; false where there are more.
template <int kArrays>
bool make_walk(std::span<const int64_t> extents, const std::span<const int64_t> (&strides)[kArrays],
               Walk<kArrays>& walk) {
  walk = {};
  for (size_t from = extents.size(); from-- > 0;) {
    walk.elements *= extents[from];
    if (extents[from] == 1) continue;
    bool joins = walk.dims > 0;
    for (int array = 0; array < kArrays && joins; ++array) {
      const int last = walk.dims - 1;
      joins = strides[array][from] == walk.stride[array][last] * walk.extent[last];
    }
    if (joins) {
      walk.extent[walk.dims - 1] *= extents[from];
      continue;
    }
    if (walk.dims == kWalkDims) return false;
    walk.extent[walk.dims] = extents[from];
    for (int array = 0; array < kArrays; ++array) {
      walk.stride[array][walk.dims] = strides[array][from];
    }
    ++walk.dims;
  }
  return true;
}

}  // namespace weft::cuda
