// Rows of a table by number, and the sum of gradients back into them. Numerical policy: the look-up
// copies. Two sums: scatter_add by atomic additions in fp32, in no fixed order, for many rows of
// anything; and embedding_backward, where the first place that names a row adds up all that do, in
// their order, in fp32: the same bits every time.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

template <typename T>
__global__ void look_up_kernel(const int64_t* ids, const T* table, int64_t first_id, int64_t rows,
                               int64_t n, int64_t width, T* out) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t row = ids[i / width] - first_id;
    out[i] = row >= 0 && row < rows ? table[row * width + i % width] : narrow<T>(0.0F);
  }
}

template <typename T>
__global__ void scatter_add_kernel(const int64_t* ids, const T* dy, int64_t first_id,
                                   int64_t padding_id, int64_t rows, int64_t n, int64_t width,
                                   float* dtable) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t id = ids[i / width], row = id - first_id;
    if (row < 0 || row >= rows || (padding_id >= 0 && id == padding_id)) continue;
    atomicAdd(&dtable[row * width + i % width], widen(dy[i]));
  }
}

// A block a place. It works where no place before it names the same row.
template <typename T>
__global__ void ordered_sum_kernel(const int64_t* ids, const T* dy, int64_t first_id,
                                   int64_t padding_id, int64_t rows, int64_t count, int64_t width,
                                   float* dtable) {
  for (int64_t place = blockIdx.x; place < count; place += gridDim.x) {
    const int64_t id = ids[place], row = id - first_id;
    const bool counts = row >= 0 && row < rows && !(padding_id >= 0 && id == padding_id);
    bool before = false;
    for (int64_t i = threadIdx.x; i < place && counts; i += blockDim.x) {
      before = before || ids[i] == id;
    }
    if (__syncthreads_or(before) != 0 || !counts) continue;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      float total = 0.0F;
      for (int64_t at = place; at < count; ++at) {
        if (ids[at] == id) total += widen(dy[at * width + i]);
      }
      dtable[row * width + i] = total;
    }
  }
}

}  // namespace

template <typename T>
void embedding(const int64_t* ids, const T* table, int64_t first_id, int64_t rows, int64_t count,
               int64_t width, T* out, cudaStream_t stream) {
  const int64_t n = count * width;
  launch(stream, blocks_of(n), kThreads, look_up_kernel<T>, ids, table, first_id, rows, n, width,
         out);
}
template <typename T>
void embedding_scatter_add(const int64_t* ids, const T* dy, int64_t first_id, int64_t padding_id,
                           int64_t rows, int64_t count, int64_t width, float* dtable,
                           cudaStream_t stream) {
  const int64_t n = count * width;
  launch(stream, blocks_of(n), kThreads, scatter_add_kernel<T>, ids, dy, first_id, padding_id, rows,
         n, width, dtable);
}
template <typename T>
void embedding_backward(const int64_t* ids, const T* dy, int64_t first_id, int64_t padding_id,
                        int64_t rows, int64_t count, int64_t width, float* dtable,
                        cudaStream_t stream) {
  fill(0.0F, dtable, rows * width, stream);
  if (width == 0) return;
  launch(stream, blocks_of(count, 1), row_threads(width), ordered_sum_kernel<T>, ids, dy, first_id,
         padding_id, rows, count, width, dtable);
}

#define WEFT_INSTANTIATE(T)                                                                    \
  template void embedding<T>(const int64_t*, const T*, int64_t, int64_t, int64_t, int64_t, T*, \
                             cudaStream_t);                                                    \
  template void embedding_scatter_add<T>(const int64_t*, const T*, int64_t, int64_t, int64_t,  \
                                         int64_t, int64_t, float*, cudaStream_t);              \
  template void embedding_backward<T>(const int64_t*, const T*, int64_t, int64_t, int64_t,     \
                                      int64_t, int64_t, float*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
