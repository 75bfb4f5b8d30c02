// One key for each row of scores, drawn by their softmax. Numerical policy: double, in the order of
// the keys, as on the CPU; the exponentials are the device's, so a draw within a rounding of a
// border may fall to the neighbour.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/philox.cuh"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

// The first place whose cumulative share exceeds `uniform`; a place of share 0 is never it. -1:
// there is nothing to draw from.
template <typename T>
__device__ int64_t place_of(const T* scores, int64_t count, double uniform) {
  float largest = -INFINITY;
  for (int64_t j = 0; j < count; ++j) largest = fmaxf(largest, widen(scores[j]));
  if (largest == -INFINITY) return -1;
  double total = 0.0, sum = 0.0;
  for (int64_t j = 0; j < count; ++j) total += exp(static_cast<double>(widen(scores[j])) - largest);
  int64_t place = -1;
  for (int64_t j = 0; j < count && !(sum > uniform * total); ++j) {
    const double share = exp(static_cast<double>(widen(scores[j])) - largest);
    if (share == 0.0) continue;
    place = j;
    sum += share;
  }
  return place;
}

template <typename T>
__global__ void draw_kernel(const __grid_constant__ Walk<1> walk, const T* scores, int64_t keys,
                            DeviceKey key, int64_t first, int64_t* index) {
  for (int64_t row = first_element(); row < walk.elements; row += elements_of_grid()) {
    const int64_t place = first + offsets_of(walk, row).at[0];
    const double uniform = uniform_of(key, static_cast<uint64_t>(place));
    index[row] = place_of(scores + row * keys, keys, uniform);
  }
}

}  // namespace

template <typename T>
void draw(const Walk<1>& walk, const T* scores, int64_t keys, DeviceKey key, int64_t first,
          int64_t* index, cudaStream_t stream) {
  launch(stream, blocks_of(walk.elements), kThreads, draw_kernel<T>, walk, scores, keys, key, first,
         index);
}

#define WEFT_INSTANTIATE(T)                                                              \
  template void draw<T>(const Walk<1>&, const T*, int64_t, DeviceKey, int64_t, int64_t*, \
                        cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
