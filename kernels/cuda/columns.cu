// The matrix of columns of a convolution (Chellapilla et al. 2006) and its transpose. Numerical
// policy: columns are copies; a place of x sums its taps in fp32, in their order, and rounds once.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

// Of the columns' element `index`: image, channel, tap and place of the result.
struct ColumnPlace {
  int64_t plane;  // image and channel
  int64_t tap[2], place[2];
};
__device__ ColumnPlace column_place(const ConvolutionWindow& w, int64_t index) {
  ColumnPlace at;
  at.place[1] = index % w.out[1];
  index /= w.out[1];
  at.place[0] = index % w.out[0];
  index /= w.out[0];
  at.tap[1] = index % w.kernel[1];
  index /= w.kernel[1];
  at.tap[0] = index % w.kernel[0];
  at.plane = index / w.kernel[0];
  return at;
}

template <typename T>
__global__ void gather_columns_kernel(ConvolutionWindow w, const T* x, T* columns, int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const ColumnPlace at = column_place(w, i);
    int64_t from[2];
    bool inside = true;
    for (int d = 0; d < 2; ++d) {
      from[d] = at.place[d] * w.stride[d] - w.before[d] + at.tap[d] * w.dilation[d];
      inside = inside && from[d] >= 0 && from[d] < w.in[d];
    }
    columns[i] = inside ? x[(at.plane * w.in[0] + from[0]) * w.in[1] + from[1]] : narrow<T>(0.0F);
  }
}

// Which place of the result reads `from` by this tap; -1: none does.
__device__ int64_t reader_of(const ConvolutionWindow& w, int d, int64_t from, int64_t tap) {
  const int64_t shifted = from + w.before[d] - tap * w.dilation[d];
  if (shifted < 0 || shifted % w.stride[d] != 0) return -1;
  const int64_t place = shifted / w.stride[d];
  return place < w.out[d] ? place : -1;
}

template <typename T>
__global__ void scatter_columns_kernel(ConvolutionWindow w, const T* columns, T* x, int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t across = i % w.in[1], up = i / w.in[1] % w.in[0], plane = i / w.in[1] / w.in[0];
    float sum = 0.0F;
    for (int64_t row = 0; row < w.kernel[0]; ++row) {
      const int64_t place_up = reader_of(w, 0, up, row);
      if (place_up < 0) continue;
      for (int64_t column = 0; column < w.kernel[1]; ++column) {
        const int64_t place = reader_of(w, 1, across, column);
        if (place < 0) continue;
        const int64_t tap = (plane * w.kernel[0] + row) * w.kernel[1] + column;
        sum += widen(columns[(tap * w.out[0] + place_up) * w.out[1] + place]);
      }
    }
    x[i] = narrow<T>(sum);
  }
}

}  // namespace

template <typename T>
void gather_columns(const ConvolutionWindow& window, const T* x, T* columns, int64_t planes,
                    cudaStream_t stream) {
  const int64_t taps = window.kernel[0] * window.kernel[1];
  const int64_t n = planes * taps * window.out[0] * window.out[1];
  launch(stream, blocks_of(n), kThreads, gather_columns_kernel<T>, window, x, columns, n);
}
template <typename T>
void scatter_columns(const ConvolutionWindow& window, const T* columns, T* x, int64_t planes,
                     cudaStream_t stream) {
  const int64_t n = planes * window.in[0] * window.in[1];
  launch(stream, blocks_of(n), kThreads, scatter_columns_kernel<T>, window, columns, x, n);
}

#define WEFT_INSTANTIATE(T)                                                                       \
  template void gather_columns<T>(const ConvolutionWindow&, const T*, T*, int64_t, cudaStream_t); \
  template void scatter_columns<T>(const ConvolutionWindow&, const T*, T*, int64_t, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
