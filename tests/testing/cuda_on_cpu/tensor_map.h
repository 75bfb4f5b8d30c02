// What a tensor map (kernels/cuda/tensor_map.h) holds on the device made of fibers.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cuda/tensor_map.h"

namespace weft::cuda_on_cpu {

struct MapContents {
  static constexpr uint64_t kMagic = 0x7E45012A90B0C0DE;
  uint64_t magic = kMagic;
  const void* data = nullptr;
  int64_t extents[4] = {}, steps[4] = {};  // features, tokens, heads, rows; elements
  int64_t box_tokens = 0;
};
static_assert(sizeof(MapContents) <= sizeof(cuda::TensorMap));

inline MapContents contents_of(const cuda::TensorMap& map) {
  MapContents contents;
  std::memcpy(static_cast<void*>(&contents), &map, sizeof(contents));
  return contents;
}

}  // namespace weft::cuda_on_cpu
