// Rows of a table by number, and the sum of gradients back into them. Numerical policy: the look-up
// copies. Two sums: scatter_add by atomic additions in fp32, in no fixed order, for many rows of
// anything; and embedding_backward, where the places that name a row were brought together
// (sort.cu) and are added in their order, in fp32: the same bits every time.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/pack.cuh"
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

// A thread a row of the table and kCount of its features. Rows of dy are read kRowsAtOnce at a time
// and added one after the other.
constexpr int kRowsAtOnce = 8;

template <typename T, int kCount>
__global__ void ordered_sum_kernel(Segments segments, const T* dy, int64_t padding_row,
                                   int64_t width, float* dtable) {
  const int64_t parts = width / kCount, n = segments.count * parts;
  for (int64_t item = first_element(); item < n; item += elements_of_grid()) {
    const int64_t row = item / parts, feature = item % parts * kCount;
    const int64_t end = segments.start[row + 1];
    int64_t at = row == padding_row ? end : segments.start[row];
    float total[kCount] = {};
    for (; at + kRowsAtOnce <= end; at += kRowsAtOnce) {
      Pack<T, kCount> pack[kRowsAtOnce];
      WEFT_UNROLL for (int i = 0; i < kRowsAtOnce; ++i) {
        pack[i] = pack_at<kCount>(dy + segments.order[at + i] * width + feature);
      }
      WEFT_UNROLL for (int i = 0; i < kRowsAtOnce; ++i) {
        WEFT_UNROLL for (int j = 0; j < kCount; ++j) total[j] += widen(pack[i].at[j]);
      }
    }
    for (; at < end; ++at) {
      const Pack<T, kCount> pack = pack_at<kCount>(dy + segments.order[at] * width + feature);
      WEFT_UNROLL for (int j = 0; j < kCount; ++j) total[j] += widen(pack.at[j]);
    }
    WEFT_UNROLL for (int j = 0; j < kCount; ++j) dtable[row * width + feature + j] = total[j];
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
void embedding_backward(const Segments& segments, const T* dy, int64_t padding_row, int64_t width,
                        float* dtable, cudaStream_t stream) {
  const int64_t n = segments.count * width;
  if (in_packs(dy, width)) {
    launch(stream, blocks_of(n / kPackMax<T>), kThreads, ordered_sum_kernel<T, kPackMax<T>>,
           segments, dy, padding_row, width, dtable);
  } else {
    launch(stream, blocks_of(n), kThreads, ordered_sum_kernel<T, 1>, segments, dy, padding_row,
           width, dtable);
  }
}

#define WEFT_INSTANTIATE(T)                                                                    \
  template void embedding<T>(const int64_t*, const T*, int64_t, int64_t, int64_t, int64_t, T*, \
                             cudaStream_t);                                                    \
  template void embedding_scatter_add<T>(const int64_t*, const T*, int64_t, int64_t, int64_t,  \
                                         int64_t, int64_t, float*, cudaStream_t);              \
  template void embedding_backward<T>(const Segments&, const T*, int64_t, int64_t, float*,     \
                                      cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
