// Dropout (Srivastava et al. 2014). Numerical policy: the mask is drawn from Philox at the
// element's index in the global array, never kept; kept elements are multiplied by
// float(1 / (1 - rate)), as on the CPU, so both give the same bits.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/philox.cuh"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

// From an element's local index to its global one; dims run from the innermost outwards.
struct GlobalWalk {
  int dims = 0;
  int64_t start = 0;
  int64_t extent[kDropoutDims] = {};
  int64_t stride[kDropoutDims] = {};  // in the global array
};

__device__ int64_t global_index(const GlobalWalk& walk, int64_t local) {
  int64_t index = walk.start;
  for (int dim = 0; dim < walk.dims; ++dim) {
    index += local % walk.extent[dim] * walk.stride[dim];
    local /= walk.extent[dim];
  }
  return index;
}

template <typename T>
__global__ void dropout_kernel(const T* x, GlobalWalk walk, float rate, float kept, DeviceKey key,
                               T* y, int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    // In parentheses: no lookup by the key's namespace, which mutants share (tests/kernels/cuda).
    const float uniform = (uniform_of)(key, static_cast<uint64_t>(global_index(walk, i)));
    y[i] = narrow<T>(uniform >= rate ? widen(x[i]) * kept : 0.0F);
  }
}

}  // namespace

template <typename T>
void dropout(const T* x, std::span<const int64_t> extent, std::span<const int64_t> global,
             std::span<const int64_t> offset, double rate, DeviceKey key, T* y,
             cudaStream_t stream) {
  const int dims = static_cast<int>(extent.size());
  check_arguments(
      dims <= kDropoutDims && global.size() == extent.size() && offset.size() == extent.size(),
      "dropout: as many extents as offsets and global extents, at most kDropoutDims");
  check_arguments(rate >= 0 && rate < 1, "dropout: a rate in [0, 1)");
  GlobalWalk walk;
  walk.dims = dims;
  int64_t n = 1, stride = 1;
  for (int dim = 0; dim < dims; ++dim) {
    const size_t from = static_cast<size_t>(dims - 1 - dim);
    walk.extent[dim] = extent[from];
    walk.stride[dim] = stride;
    walk.start += offset[from] * stride;
    stride *= global[from];
    n *= extent[from];
  }
  launch(stream, blocks_of(n), kThreads, dropout_kernel<T>, x, walk, static_cast<float>(rate),
         static_cast<float>(1 / (1 - rate)), key, y, n);
}

#define WEFT_INSTANTIATE(T)                                                              \
  template void dropout<T>(const T*, std::span<const int64_t>, std::span<const int64_t>, \
                           std::span<const int64_t>, double, DeviceKey, T*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
