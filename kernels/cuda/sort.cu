// Sorting rows by merging runs: a block sorts a tile in shared memory, then each pass over all
// elements doubles the runs. An element finds its place in the merged run by itself: behind those
// of its own run that stand before it and those of the other that come before it. Numerical policy:
// exact and stable; NaN counts as the largest.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/order.cuh"

namespace weft::cuda {
namespace {

// Where element i of a row goes when its run and the neighbour of that become one.
template <typename T>
__device__ int64_t merged_place(const T* keys, int64_t width, int64_t run, int64_t i,
                                bool descending) {
  const int64_t start = i / (2 * run) * 2 * run;
  const int64_t middle = min(start + run, width), end = min(start + 2 * run, width);
  const bool left = i < middle;
  const T own = keys[i];
  const int64_t first = left ? middle : start;
  int64_t low = first, high = left ? end : middle;
  while (low < high) {
    const int64_t probe = low + (high - low) / 2;
    const bool ahead = left ? comes_before(descending, keys[probe], own)
                            : !comes_before(descending, own, keys[probe]);
    if (ahead) {
      low = probe + 1;
    } else {
      high = probe;
    }
  }
  return i + (low - first) - (left ? 0 : middle - start);
}

// keys [rows, width] and where in its row each came from, by tiles.
template <typename T>
__global__ void sort_tiles_kernel(const T* x, int64_t rows, int64_t width, bool descending, T* keys,
                                  int64_t* places) {
  T* held = shared_memory<T>();                                      // [2, kSortTile]
  int32_t* from = reinterpret_cast<int32_t*>(held + 2 * kSortTile);  // the same
  const int64_t tiles = (width + kSortTile - 1) / kSortTile;
  for (int64_t item = blockIdx.x; item < rows * tiles; item += gridDim.x) {
    const int64_t first = item % tiles * kSortTile, start = item / tiles * width + first;
    const int count = static_cast<int>(min(width - first, int64_t{kSortTile}));
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    for (int i = thread; i < count; i += threads) {
      held[i] = x[start + i];
      from[i] = i;
    }
    __syncthreads();
    int now = 0, next = kSortTile;
    for (int run = 1; run < count; run *= 2) {
      for (int i = thread; i < count; i += threads) {
        const int64_t to = next + merged_place(held + now, count, run, i, descending);
        held[to] = held[now + i];
        from[to] = from[now + i];
      }
      __syncthreads();
      now = next;
      next = kSortTile - now;
    }
    for (int i = thread; i < count; i += threads) {
      keys[start + i] = held[now + i];
      places[start + i] = first + from[now + i];
    }
    __syncthreads();  // all have read: the next tile may write
  }
}

template <typename T>
__global__ void merge_runs_kernel(const T* keys, const int64_t* places, int64_t n, int64_t width,
                                  int64_t run, bool descending, T* merged, int64_t* merged_places) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t start = i / width * width;
    const int64_t to = start + merged_place(keys + start, width, run, i - start, descending);
    merged[to] = keys[i];
    merged_places[to] = places[i];
  }
}

}  // namespace

template <typename T>
void sort_rows(const T* x, int64_t rows, int64_t width, bool descending, T* values, int64_t* places,
               T* other_values, int64_t* other_places, cudaStream_t stream) {
  const int64_t tiles = (width + kSortTile - 1) / kSortTile;
  bool in_other = false;  // the last pass has to end in `values`
  for (int64_t run = kSortTile; run < width; run *= 2) in_other = !in_other;
  const size_t bytes = 2 * kSortTile * (sizeof(T) + sizeof(int32_t));
  launch_shared(stream, blocks_of(rows * tiles, 1), row_threads(width), bytes, sort_tiles_kernel<T>,
                x, rows, width, descending, in_other ? other_values : values,
                in_other ? other_places : places);
  for (int64_t run = kSortTile; run < width; run *= 2) {
    launch(stream, blocks_of(rows * width), kThreads, merge_runs_kernel<T>,
           in_other ? other_values : values, in_other ? other_places : places, rows * width, width,
           run, descending, in_other ? values : other_values, in_other ? places : other_places);
    in_other = !in_other;
  }
}

#define WEFT_INSTANTIATE(T)                                                                \
  template void sort_rows<T>(const T*, int64_t, int64_t, bool, T*, int64_t*, T*, int64_t*, \
                             cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
WEFT_INSTANTIATE(int64_t)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
