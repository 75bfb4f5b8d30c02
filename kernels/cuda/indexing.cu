// Elements by number. Numerical policy: copies. A number outside takes NaN, and puts nothing; who
// asks is told of it.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/outside.cuh"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

template <typename T>
__global__ void take_kernel(const __grid_constant__ Walk<3> walk, NumberedDim dim,
                            const int64_t* index, const T* x, T* out) {
  constexpr uint32_t kNan = 0x7FC00000;
  for (int64_t i = first_element(); i < walk.elements; i += elements_of_grid()) {
    const Offsets<3> at = offsets_of(walk, i);
    const int64_t number = index[at.at[0]];
    const bool there = noted_inside(dim.outside, number, dim.extent);
    out[at.at[2]] = there ? x[at.at[1] + number * dim.step] : narrow<T>(float_of_bits(kNan));
  }
}

template <typename T>
__global__ void put_kernel(const __grid_constant__ Walk<3> walk, NumberedDim dim,
                           const int64_t* index, const T* source, T* out) {
  for (int64_t i = first_element(); i < walk.elements; i += elements_of_grid()) {
    const Offsets<3> at = offsets_of(walk, i);
    const int64_t number = index[at.at[0]];
    const bool there = noted_inside(dim.outside, number, dim.extent);
    if (there) out[at.at[2] + number * dim.step] = source[at.at[1]];
  }
}

__global__ void targets_kernel(const __grid_constant__ Walk<3> walk, NumberedDim dim,
                               const int64_t* index, int64_t* targets) {
  for (int64_t i = first_element(); i < walk.elements; i += elements_of_grid()) {
    const Offsets<3> at = offsets_of(walk, i);
    const int64_t number = index[at.at[0]];
    const bool there = noted_inside(dim.outside, number, dim.extent);
    targets[at.at[2]] = there ? at.at[1] + number * dim.step : -1;
  }
}

template <typename T>
__global__ void one_hot_kernel(const int64_t* ids, int64_t n, int64_t classes, T one, T zero,
                               T* out, Outside outside) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    if (i % classes == 0) (void)noted_inside(outside, ids[i / classes], classes);
    out[i] = ids[i / classes] == i % classes ? one : zero;
  }
}

__global__ void triangle_kernel(int64_t n, int64_t columns, int64_t diagonal, uint8_t* out) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    out[i] = i % columns <= i / columns + diagonal ? 1 : 0;
  }
}

__global__ void rows_of_index_kernel(const int64_t* index, int64_t n, int64_t of_group,
                                     int64_t extent, int64_t* out) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    out[i] = inside(index[i], extent) ? i / of_group * extent + index[i] : -1;
  }
}

}  // namespace

template <typename T>
void take_along(const Walk<3>& walk, const NumberedDim& dim, const int64_t* index, const T* x,
                T* out, cudaStream_t stream) {
  launch(stream, blocks_of(walk.elements), kThreads, take_kernel<T>, walk, dim, index, x, out);
}
template <typename T>
void put_along(const Walk<3>& walk, const NumberedDim& dim, const int64_t* index, const T* source,
               T* out, cudaStream_t stream) {
  launch(stream, blocks_of(walk.elements), kThreads, put_kernel<T>, walk, dim, index, source, out);
}
void targets_along(const Walk<3>& walk, const NumberedDim& dim, const int64_t* index,
                   int64_t* targets, cudaStream_t stream) {
  launch(stream, blocks_of(walk.elements), kThreads, targets_kernel, walk, dim, index, targets);
}
template <typename T>
void one_hot(const int64_t* ids, int64_t count, int64_t classes, T one, T zero, T* out,
             const Outside& outside, cudaStream_t stream) {
  const int64_t n = count * classes;
  launch(stream, blocks_of(n), kThreads, one_hot_kernel<T>, ids, n, classes, one, zero, out,
         outside);
}
void triangular_mask(int64_t rows, int64_t columns, int64_t diagonal, uint8_t* out,
                     cudaStream_t stream) {
  const int64_t n = rows * columns;
  launch(stream, blocks_of(n), kThreads, triangle_kernel, n, columns, diagonal, out);
}
void rows_of_index(const int64_t* index, int64_t groups, int64_t of_group, int64_t extent,
                   int64_t* out, cudaStream_t stream) {
  const int64_t n = groups * of_group;
  launch(stream, blocks_of(n), kThreads, rows_of_index_kernel, index, n, of_group, extent, out);
}

#define WEFT_INSTANTIATE(T)                                                                     \
  template void take_along<T>(const Walk<3>&, const NumberedDim&, const int64_t*, const T*, T*, \
                              cudaStream_t);                                                    \
  template void put_along<T>(const Walk<3>&, const NumberedDim&, const int64_t*, const T*, T*,  \
                             cudaStream_t);                                                     \
  template void one_hot<T>(const int64_t*, int64_t, int64_t, T, T, T*, const Outside&,          \
                           cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE
#define WEFT_INSTANTIATE(T)                                                            \
  template void one_hot<T>(const int64_t*, int64_t, int64_t, T, T, T*, const Outside&, \
                           cudaStream_t);
WEFT_INSTANTIATE(double)
WEFT_INSTANTIATE(int64_t)
WEFT_INSTANTIATE(int32_t)
WEFT_INSTANTIATE(uint8_t)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
