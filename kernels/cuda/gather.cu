// One row of each group by number, and its gradient. Numerical policy: copies.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/outside.cuh"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

template <typename T>
__global__ void gather_kernel(const T* x, const int64_t* index, T* out, int64_t rows,
                              int64_t tokens, int64_t width, Outside outside) {
  for (int64_t i = first_element(); i < rows * width; i += elements_of_grid()) {
    const int64_t row = i / width, token = index[row];
    const bool there = token != -1 && noted_inside(outside, token, tokens);
    out[i] = there ? x[(row * tokens + token) * width + i % width] : narrow<T>(0.0F);
  }
}

template <typename T>
__global__ void gather_backward_kernel(const T* dy, const int64_t* index, T* dx, int64_t rows,
                                       int64_t tokens, int64_t width) {
  const int64_t n = rows * tokens * width;
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t row = i / (tokens * width), token = i / width % tokens;
    dx[i] = token == index[row] ? dy[row * width + i % width] : narrow<T>(0.0F);
  }
}

}  // namespace

template <typename T>
void gather_rows(const T* x, const int64_t* index, T* out, int64_t rows, int64_t tokens,
                 int64_t width, const Outside& outside, cudaStream_t stream) {
  launch(stream, blocks_of(rows * width), kThreads, gather_kernel<T>, x, index, out, rows, tokens,
         width, outside);
}
template <typename T>
void gather_rows_backward(const T* dy, const int64_t* index, T* dx, int64_t rows, int64_t tokens,
                          int64_t width, cudaStream_t stream) {
  launch(stream, blocks_of(rows * tokens * width), kThreads, gather_backward_kernel<T>, dy, index,
         dx, rows, tokens, width);
}

#define WEFT_INSTANTIATE(T)                                                                      \
  template void gather_rows<T>(const T*, const int64_t*, T*, int64_t, int64_t, int64_t,          \
                               const Outside&, cudaStream_t);                                    \
  template void gather_rows_backward<T>(const T*, const int64_t*, T*, int64_t, int64_t, int64_t, \
                                        cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
