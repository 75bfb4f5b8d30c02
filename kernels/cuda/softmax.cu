// Softmax over rows and its gradient. Numerical policy: fp32, shifted by the row's maximum, so that
// no exponential overflows; sums as rows.cuh says; one rounding at the end. Exponentials of half
// types are the hardware's approximations (curves.cuh).
#include "kernels/cuda/curves.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

template <typename T, int kKeep>
__global__ void __launch_bounds__(kRowThreads)
    softmax_kernel(const T* x, T* y, int64_t rows, int64_t width, bool vectors) {
  const bool aligned = kKeep > 0 || vectors;
  constexpr int kWide = kVectorWidth<T>;
  float* partials = shared_memory<float>();
  for (int64_t row = first_row(); row < rows; row += rows_of_grid()) {
    const T* from = x + row * width;
    Packed<T, kWide> packed[kKeep > 0 ? kKeep : 1];
    Vector<float, kWide> kept[kKeep > 0 ? kKeep : 1];  // the elements, then their exponentials
    const auto widened = [](const Vector<T, kWide>& elements, int count) {
      Vector<float, kWide> wide;
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) wide.at[j] = j < count ? widen(elements.at[j]) : -INFINITY;
      return wide;
    };
    const auto read = [&](int64_t at, int count) {
      return widened(load_some<kWide>(from + at, count, aligned), count);
    };
    float largest = -INFINITY;
    for_vectors<kKeep, kWide>(kKeep > 0 ? width : 0, [&](int k, int64_t at, int) {
      packed[k] = load_packed<kWide>(from + at);
    });
    for_vectors<kKeep, kWide>(width, [&](int k, int64_t at, int count) {
      kept[k] = kKeep > 0 ? widened(unpack(packed[k]), count) : read(at, count);
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) largest = Max::combine(largest, kept[k].at[j]);
    });
    largest = row_reduce<Max>(largest, partials);
    const bool none = largest == -INFINITY;  // nothing to choose from
    const auto bend = [&](Vector<float, kWide>& values) {
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) {
        values.at[j] = none ? 0.0F : exponential_for<T>(values.at[j] - largest);
      }
    };
    float total = 0.0F;
    for_vectors<kKeep, kWide>(width, [&](int k, int64_t at, int count) {
      if (kKeep == 0) kept[0] = read(at, count);
      bend(kept[k]);
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) total += kept[k].at[j];
    });
    total = row_reduce<Add>(total, partials);
    for_vectors<kKeep, kWide>(width, [&](int k, int64_t at, int count) {
      if (kKeep == 0) {
        kept[0] = read(at, count);
        bend(kept[0]);
      }
      Vector<T, kWide> share;
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) {
        share.at[j] = narrow<T>(none ? 0.0F : quotient_for<T>(kept[k].at[j], total));
      }
      store_some(y + row * width + at, share, count, aligned);
    });
  }
}

// dx = y (dy - sum(y dy)).
template <typename T, int kKeep>
__global__ void __launch_bounds__(kRowThreads)
    backward_kernel(const T* y, const T* dy, T* dx, int64_t rows, int64_t width, bool vectors) {
  const bool aligned = kKeep > 0 || vectors;
  constexpr int kWide = kVectorWidth<T>;
  float* partials = shared_memory<float>();
  for (int64_t row = first_row(); row < rows; row += rows_of_grid()) {
    const int64_t start = row * width;
    Packed<T, kWide> kept_y[kKeep > 0 ? kKeep : 1], kept_dy[kKeep > 0 ? kKeep : 1];
    for_vectors<kKeep, kWide>(kKeep > 0 ? width : 0, [&](int k, int64_t at, int) {
      kept_y[k] = load_packed<kWide>(y + start + at);
      kept_dy[k] = load_packed<kWide>(dy + start + at);
    });
    const auto of = [&](const Packed<T, kWide>* kept, const T* array, int k, int64_t at,
                        int count) {
      return kKeep > 0 ? unpack(kept[k]) : load_some<kWide>(array + start + at, count, aligned);
    };
    float along = 0.0F;
    for_vectors<kKeep, kWide>(width, [&](int k, int64_t at, int count) {
      const auto share = of(kept_y, y, k, at, count), d = of(kept_dy, dy, k, at, count);
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) along += widen(share.at[j]) * widen(d.at[j]);
    });
    along = row_reduce<Add>(along, partials);
    for_vectors<kKeep, kWide>(width, [&](int k, int64_t at, int count) {
      const auto share = of(kept_y, y, k, at, count), d = of(kept_dy, dy, k, at, count);
      Vector<T, kWide> slope;
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) {
        slope.at[j] = narrow<T>(widen(share.at[j]) * (widen(d.at[j]) - along));
      }
      store_some(dx + start + at, slope, count, aligned);
    });
  }
}

}  // namespace

template <typename T>
void softmax(const T* x, T* y, int64_t rows, int64_t width, cudaStream_t stream) {
  const bool aligned = (rows_take_vectors<T>)(width, x, y);
  const dim3 block = row_block<T>(width);
  with_kept<T>(width, aligned, [&]<int kKeep>() {
    launch_shared(stream, blocks_of_rows(rows, block), block, kWarp * sizeof(float),
                  softmax_kernel<T, kKeep>, x, y, rows, width, aligned);
  });
}
template <typename T>
void softmax_backward(const T* y, const T* dy, T* dx, int64_t rows, int64_t width,
                      cudaStream_t stream) {
  const bool aligned = (rows_take_vectors<T>)(width, y, dy, dx);
  const dim3 block = row_block<T>(width);
  with_kept<T>(width, aligned, [&]<int kKeep>() {
    launch_shared(stream, blocks_of_rows(rows, block), block, kWarp * sizeof(float),
                  backward_kernel<T, kKeep>, y, dy, dx, rows, width, aligned);
  });
}

#define WEFT_INSTANTIATE(T)                                               \
  template void softmax<T>(const T*, T*, int64_t, int64_t, cudaStream_t); \
  template void softmax_backward<T>(const T*, const T*, T*, int64_t, int64_t, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
