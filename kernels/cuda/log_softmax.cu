// The logarithm of softmax over rows and its gradient. Numerical policy: fp32, shifted by the row's
// maximum; sums as rows.cuh says; one rounding at the end. Exponentials of half types are the
// hardware's approximations (curves.cuh).
#include "kernels/cuda/curves.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

template <typename T, int kKeep, int kThreads>
__global__ void __launch_bounds__(kRowThreads)
    log_softmax_kernel(const T* x, T* y, int64_t rows, int64_t width, bool vectors) {
  constexpr int kWide = kVectorWidth<T>;
  const bool aligned = kKeep > 0 || vectors;
  float* partials = shared_memory<float>();
  for (int64_t row = first_row(); row < rows; row += rows_of_grid()) {
    const T* from = x + row * width;
    Packed<T, kWide> kept[kKeep > 0 ? kKeep : 1];
    for_vectors<kKeep, kThreads, kWide>(kKeep > 0 ? width : 0, [&](int k, int64_t at, int) {
      kept[k] = load_packed<kWide>(from + at);
    });
    const auto values = [&](int k, int64_t at, int count) {
      return kKeep > 0 ? unpack(kept[k]) : load_some<kWide>(from + at, count, aligned);
    };
    float largest = -INFINITY, total = 0.0F;
    for_vectors<kKeep, kThreads, kWide>(width, [&](int k, int64_t at, int count) {
      const Vector<T, kWide> x_at = values(k, at, count);
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) {
        if (j < count) largest = Max::combine(largest, widen(x_at.at[j]));
      }
    });
    largest = row_reduce<Max, kThreads>(largest, partials);
    if (largest == -INFINITY) largest = 0.0F;  // nothing to choose from, or NaN
    for_vectors<kKeep, kThreads, kWide>(width, [&](int k, int64_t at, int count) {
      const Vector<T, kWide> x_at = values(k, at, count);
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) {
        const float term = exponential_for<T>(widen(x_at.at[j]) - largest);
        total += j >= count ? 0.0F : term;
      }
    });
    total = row_reduce<Add, kThreads>(total, partials);
    const bool none = total == 0.0F;
    const float log_total = logf(total);
    for_vectors<kKeep, kThreads, kWide>(width, [&](int k, int64_t at, int count) {
      const Vector<T, kWide> x_at = values(k, at, count);
      Vector<T, kWide> share;
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) {
        share.at[j] = narrow<T>(none ? 0.0F : (widen(x_at.at[j]) - largest) - log_total);
      }
      store_some(y + row * width + at, share, count, aligned);
    });
  }
}

// dx = dy - exp(y) sum(dy).
template <typename T, int kKeep, int kThreads>
__global__ void __launch_bounds__(kRowThreads)
    log_softmax_backward_kernel(const T* y, const T* dy, T* dx, int64_t rows, int64_t width,
                                bool vectors) {
  constexpr int kWide = kVectorWidth<T>;
  const bool aligned = kKeep > 0 || vectors;
  float* partials = shared_memory<float>();
  for (int64_t row = first_row(); row < rows; row += rows_of_grid()) {
    const int64_t start = row * width;
    Packed<T, kWide> kept_y[kKeep > 0 ? kKeep : 1], kept_dy[kKeep > 0 ? kKeep : 1];
    for_vectors<kKeep, kThreads, kWide>(kKeep > 0 ? width : 0, [&](int k, int64_t at, int) {
      kept_y[k] = load_packed<kWide>(y + start + at);
      kept_dy[k] = load_packed<kWide>(dy + start + at);
    });
    const auto of = [&](const Packed<T, kWide>* kept, const T* array, int k, int64_t at,
                        int count) {
      return kKeep > 0 ? unpack(kept[k]) : load_some<kWide>(array + start + at, count, aligned);
    };
    float total = 0.0F;  // behind the row's end dy is 0
    for_vectors<kKeep, kThreads, kWide>(width, [&](int k, int64_t at, int count) {
      const Vector<T, kWide> d = of(kept_dy, dy, k, at, count);
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) total += widen(d.at[j]);
    });
    total = row_reduce<Add, kThreads>(total, partials);
    for_vectors<kKeep, kThreads, kWide>(width, [&](int k, int64_t at, int count) {
      const auto log_share = of(kept_y, y, k, at, count), d = of(kept_dy, dy, k, at, count);
      Vector<T, kWide> slope;
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) {
        const float share = exponential_for<T>(widen(log_share.at[j]));
        slope.at[j] = narrow<T>(widen(d.at[j]) - share * total);
      }
      store_some(dx + start + at, slope, count, aligned);
    });
  }
}

}  // namespace

template <typename T>
void log_softmax(const T* x, T* y, int64_t rows, int64_t width, cudaStream_t stream) {
  const bool aligned = (rows_take_vectors<T>)(width, x, y);
  const dim3 block = row_block<T>(width);
  with_kept<T>(width, aligned, [&]<int kKeep, int kThreads>() {
    launch_shared(stream, blocks_of_rows(rows, block), block, kWarp * sizeof(float),
                  log_softmax_kernel<T, kKeep, kThreads>, x, y, rows, width, aligned);
  });
}
template <typename T>
void log_softmax_backward(const T* y, const T* dy, T* dx, int64_t rows, int64_t width,
                          cudaStream_t stream) {
  const bool aligned = (rows_take_vectors<T>)(width, y, dy, dx);
  const dim3 block = row_block<T>(width);
  with_kept<T>(width, aligned, [&]<int kKeep, int kThreads>() {
    launch_shared(stream, blocks_of_rows(rows, block), block, kWarp * sizeof(float),
                  log_softmax_backward_kernel<T, kKeep, kThreads>, y, dy, dx, rows, width, aligned);
  });
}

#define WEFT_INSTANTIATE(T)                                                   \
  template void log_softmax<T>(const T*, T*, int64_t, int64_t, cudaStream_t); \
  template void log_softmax_backward<T>(const T*, const T*, T*, int64_t, int64_t, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
