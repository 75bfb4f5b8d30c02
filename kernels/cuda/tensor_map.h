// Tensor maps: how the bulk copy engine of sm_90 (ptx_sm90.cuh) is told of an array in device
// memory and of the boxes that are copied out of it.
//
// Thread safety: any thread. Ownership: a map holds no memory; it is handed to kernels by value
// (__grid_constant__).
#pragma once

#include <cstdint>

namespace weft::cuda {

struct alignas(128) TensorMap {  // the driver's CUtensorMap
  uint64_t opaque[16];
};

// An array of half-width elements [rows, heads, tokens, features], features next to each other, and
// boxes of 64 features by `box_tokens` (at most 256) tokens of it.
struct MappedArray {
  const void* data = nullptr;  // a multiple of 16 bytes
  bool bfloat16 = true;        // else float16
  int64_t features = 0, tokens = 0, heads = 0, rows = 0;
  int64_t token_step = 0, head_step = 0, row_step = 0;  // elements, multiples of 8
  int box_tokens = 0;
};

// False where the driver has no such maps or refuses this one.
bool make_tensor_map(const MappedArray& array, TensorMap& map);

}  // namespace weft::cuda
