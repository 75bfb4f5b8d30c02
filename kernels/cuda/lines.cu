// Extremes and running sums along the middle of [outer, extent, inner]: its lines, a block each
// where they are long and few, else a thread each. Numerical policy: extremes are elements, of
// equal ones the first, and of a line with a NaN its first NaN; running sums are added up in
// double, as on the CPU, in an order that depends on the extents only, and rounded once each.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

constexpr int64_t kLongLine = 4 * kWarp;
constexpr int64_t kManyLines = 16384;  // enough threads without blocks for lines

// The first element of a line.
__device__ inline int64_t start_of(int64_t line, int64_t extent, int64_t inner) {
  return line / inner * extent * inner + line % inner;
}

struct Candidate {
  float value;
  int64_t place;  // -1: none yet
};
// Whether `a` is the extreme of the two.
__device__ inline bool wins(bool larger, Candidate a, Candidate b) {
  if (a.place < 0 || b.place < 0) return b.place < 0;
  const bool a_is_nan = a.value != a.value, b_is_nan = b.value != b.value;
  if (a_is_nan != b_is_nan) return a_is_nan;
  if (a_is_nan || a.value == b.value) return a.place < b.place;
  return larger ? a.value > b.value : a.value < b.value;
}

__device__ inline Candidate extreme_of_warp(bool larger, Candidate own) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const Candidate other{__shfl_xor_sync(kAllLanes, own.value, distance),
                          __shfl_xor_sync(kAllLanes, own.place, distance)};
    if (wins(larger, other, own)) own = other;
  }
  return own;
}

template <typename T>
__global__ void extreme_of_lines_kernel(bool larger, const T* x, int64_t lines, int64_t extent,
                                        int64_t inner, T* values, int64_t* places) {
  for (int64_t line = first_element(); line < lines; line += elements_of_grid()) {
    const int64_t start = start_of(line, extent, inner);
    Candidate best{0.0F, -1};
    for (int64_t i = 0; i < extent; ++i) {
      const Candidate next{widen(x[start + i * inner]), i};
      if (wins(larger, next, best)) best = next;
    }
    values[line] = x[start + best.place * inner];
    places[line] = best.place;
  }
}

template <typename T>
__global__ void extreme_of_long_lines_kernel(bool larger, const T* x, int64_t lines, int64_t extent,
                                             int64_t inner, T* values, int64_t* places) {
  Candidate* of_warps = shared_memory<Candidate>();
  const int warp = static_cast<int>(threadIdx.x) / kWarp,
            lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int64_t line = blockIdx.x; line < lines; line += gridDim.x) {
    const int64_t start = start_of(line, extent, inner);
    Candidate best{0.0F, -1};
    for (int64_t i = threadIdx.x; i < extent; i += blockDim.x) {
      const Candidate next{widen(x[start + i * inner]), i};
      if (wins(larger, next, best)) best = next;
    }
    best = extreme_of_warp(larger, best);
    if (lane == 0) of_warps[warp] = best;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int other = 1; other < static_cast<int>(blockDim.x) / kWarp; ++other) {
        if (wins(larger, of_warps[other], best)) best = of_warps[other];
      }
      values[line] = x[start + best.place * inner];
      places[line] = best.place;
    }
    __syncthreads();  // all have read: the next line may write
  }
}

template <typename T>
__global__ void running_sum_kernel(const T* x, T* y, int64_t lines, int64_t extent, int64_t inner,
                                   bool reversed) {
  for (int64_t line = first_element(); line < lines; line += elements_of_grid()) {
    const int64_t start = start_of(line, extent, inner);
    double total = 0.0;
    for (int64_t i = 0; i < extent; ++i) {
      const int64_t at = start + (reversed ? extent - 1 - i : i) * inner;
      total += static_cast<double>(widen(x[at]));
      y[at] = narrow<T>(static_cast<float>(total));
    }
  }
}

// The sum over the block's threads up to this one; `total`: over all. of_warps is shared, kWarp of
// them, and may be used again at once. All threads of the block call it.
__device__ inline double sum_so_far(double value, double* of_warps, double& total) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp,
            warp = static_cast<int>(threadIdx.x) / kWarp;
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const double before = __shfl_up_sync(kAllLanes, value, static_cast<unsigned>(distance));
    if (lane >= distance) value += before;
  }
  if (lane == kWarp - 1) of_warps[warp] = value;
  __syncthreads();
  double before = 0.0;
  total = 0.0;
  for (int other = 0; other < static_cast<int>(blockDim.x) / kWarp; ++other) {
    if (other == warp) before = total;
    total += of_warps[other];
  }
  __syncthreads();  // all have read: the next sums may be written
  return before + value;
}

template <typename T>
__global__ void running_sum_of_long_lines_kernel(const T* x, T* y, int64_t lines, int64_t extent,
                                                 int64_t inner, bool reversed) {
  double* of_warps = shared_memory<double>();
  for (int64_t line = blockIdx.x; line < lines; line += gridDim.x) {
    const int64_t start = start_of(line, extent, inner);
    double before = 0.0, total = 0.0;
    for (int64_t first = 0; first < extent; first += blockDim.x) {
      const int64_t i = first + threadIdx.x;
      const int64_t at = start + (reversed ? extent - 1 - i : i) * inner;
      const double own = i < extent ? static_cast<double>(widen(x[at])) : 0.0;
      const double sum = sum_so_far(own, of_warps, total);
      if (i < extent) y[at] = narrow<T>(static_cast<float>(before + sum));
      before += total;
    }
  }
}

bool by_block(int64_t lines, int64_t extent, int64_t inner) {
  return extent >= kLongLine && (inner == 1 || lines < kManyLines);
}

}  // namespace

template <typename T>
void extreme_along(bool larger, const T* x, int64_t outer, int64_t extent, int64_t inner, T* values,
                   int64_t* places, cudaStream_t stream) {
  const int64_t lines = outer * inner;
  if (by_block(lines, extent, inner)) {
    launch_shared(stream, blocks_of(lines, 1), row_threads(extent), kWarp * sizeof(Candidate),
                  extreme_of_long_lines_kernel<T>, larger, x, lines, extent, inner, values, places);
  } else {
    launch(stream, blocks_of(lines), kThreads, extreme_of_lines_kernel<T>, larger, x, lines, extent,
           inner, values, places);
  }
}

template <typename T>
void cumulative_sum(const T* x, T* y, int64_t outer, int64_t extent, int64_t inner, bool reversed,
                    cudaStream_t stream) {
  const int64_t lines = extent == 0 ? 0 : outer * inner;
  if (by_block(lines, extent, inner)) {
    launch_shared(stream, blocks_of(lines, 1), row_threads(extent), kWarp * sizeof(double),
                  running_sum_of_long_lines_kernel<T>, x, y, lines, extent, inner, reversed);
  } else {
    launch(stream, blocks_of(lines), kThreads, running_sum_kernel<T>, x, y, lines, extent, inner,
           reversed);
  }
}

#define WEFT_INSTANTIATE(T)                                                               \
  template void extreme_along<T>(bool, const T*, int64_t, int64_t, int64_t, T*, int64_t*, \
                                 cudaStream_t);                                           \
  template void cumulative_sum<T>(const T*, T*, int64_t, int64_t, int64_t, bool, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
