#include "tests/testing/cuda_on_cpu/tensor_map.h"

namespace weft::cuda {

// Refuses what the driver refuses (the CUDA driver API, cuTensorMapEncodeTiled).
bool make_tensor_map(const MappedArray& x, TensorMap& map) {
  cuda_on_cpu::MapContents contents;
  contents.data = x.data;
  contents.box_tokens = x.box_tokens;
  const int64_t extents[4] = {x.features, x.tokens, x.heads, x.rows};
  const int64_t steps[4] = {1, x.token_step, x.head_step, x.row_step};
  bool taken =
      reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.box_tokens >= 1 && x.box_tokens <= 256;
  for (int i = 0; i < 4; ++i) {
    contents.extents[i] = extents[i];
    contents.steps[i] = steps[i];
    taken = taken && extents[i] >= 1 && extents[i] <= int64_t{1} << 32;
    const bool counts = i > 0 && extents[i] > 1;
    taken = taken && (!counts ||
                      (steps[i] * 2 % 16 == 0 && steps[i] > 0 && steps[i] * 2 < int64_t{1} << 40));
  }
  if (taken) std::memcpy(&map, &contents, sizeof(contents));
  return taken;
}

}  // namespace weft::cuda
