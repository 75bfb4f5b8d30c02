// Softmax over rows and its gradient. Numerical policy: fp32, shifted by the row's maximum, so that
// no exponential overflows; sums as rows.cuh says; one rounding at the end. Exponentials of half
// types are the hardware's approximations (curves.cuh).
#include "kernels/cuda/curves.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

// Exponentials are taken twice: to keep them in fp32 costs more than that does.
template <typename T, int kKeep, int kThreads>
__global__ void __launch_bounds__(kRowThreads)
    softmax_kernel(const T* x, T* y, int64_t rows, int64_t width, bool vectors) {
  const bool aligned = kKeep > 0 || vectors;
  constexpr int kWide = kVectorWidth<T>;
  float* partials = shared_memory<float>();
  for (int64_t row = first_row(); row < rows; row += rows_of_grid()) {
    const T* from = x + row * width;
    Packed<T, kWide> kept[kKeep > 0 ? kKeep : 1];
    for_vectors<kKeep, kThreads, kWide>(kKeep > 0 ? width : 0, [&](int k, int64_t at, int) {
      kept[k] = load_packed<kWide>(from + at);
    });
    const auto values = [&](int k, int64_t at, int count) {
      return widened(kKeep > 0 ? kept[k] : load_some_packed<kWide>(from + at, count, aligned));
    };
    float largest = -INFINITY;
    for_vectors<kKeep, kThreads, kWide>(width, [&](int k, int64_t at, int count) {
      const Vector<float, kWide> elements = values(k, at, count);
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) {
        if (j < count) largest = fmaxf(largest, elements.at[j]);
      }
    });
    largest = row_reduce<Max, kThreads>(largest, partials);
    if (largest == -INFINITY) largest = 0.0F;  // nothing to choose from, or NaN
    // Calls act(j, exponential) for the elements of a vector.
    const auto each_of = [&](int k, int64_t at, int count, const auto& act) {
      const Vector<float, kWide> elements = values(k, at, count);
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) {
        if (j < count) act(j, exponential_for<T>(elements.at[j] - largest));
      }
    };
    float total = 0.0F;
    for_vectors<kKeep, kThreads, kWide>(width, [&](int k, int64_t at, int count) {
      each_of(k, at, count, [&](int, float power) { total += power; });
    });
    total = row_reduce<Add, kThreads>(total, partials);
    if (total == 0.0F) total = 1.0F;
    const float inverse = quotient_for<T>(1.0F, total);
    for_vectors<kKeep, kThreads, kWide>(width, [&](int k, int64_t at, int count) {
      Vector<T, kWide> share;
      each_of(k, at, count, [&](int j, float power) {
        share.at[j] = narrow<T>(std::is_same_v<T, float> ? power / total : power * inverse);
      });
      store_some(y + row * width + at, share, count, aligned);
    });
  }
}

// dx = y (dy - sum(y dy)).
template <typename T, int kKeep, int kThreads>
__global__ void __launch_bounds__(kRowThreads)
    backward_kernel(const T* y, const T* dy, T* dx, int64_t rows, int64_t width, bool vectors) {
  const bool aligned = kKeep > 0 || vectors;
  constexpr int kWide = kVectorWidth<T>;
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
      return widened(kKeep > 0 ? kept[k]
                               : load_some_packed<kWide>(array + start + at, count, aligned));
    };
    float along = 0.0F;
    for_vectors<kKeep, kThreads, kWide>(width, [&](int k, int64_t at, int count) {
      const auto share = of(kept_y, y, k, at, count), d = of(kept_dy, dy, k, at, count);
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) along += share.at[j] * d.at[j];
    });
    along = row_reduce<Add, kThreads>(along, partials);
    for_vectors<kKeep, kThreads, kWide>(width, [&](int k, int64_t at, int count) {
      const auto share = of(kept_y, y, k, at, count), d = of(kept_dy, dy, k, at, count);
      Vector<T, kWide> slope;
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) {
        slope.at[j] = narrow<T>(share.at[j] * (d.at[j] - along));
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
  with_kept<T>(width, aligned, [&]<int kKeep, int kThreads>() {
    launch_shared(stream, blocks_of_rows(rows, block), block, kWarp * sizeof(float),
                  softmax_kernel<T, kKeep, kThreads>, x, y, rows, width, aligned);
  });
}
template <typename T>
void softmax_backward(const T* y, const T* dy, T* dx, int64_t rows, int64_t width,
                      cudaStream_t stream) {
  const bool aligned = (rows_take_vectors<T>)(width, y, dy, dx);
  const dim3 block = row_block<T>(width);
  with_kept<T>(width, aligned, [&]<int kKeep, int kThreads>() {
    launch_shared(stream, blocks_of_rows(rows, block), block, kWarp * sizeof(float),
                  backward_kernel<T, kKeep, kThreads>, y, dy, dx, rows, width, aligned);
  });
}

#define WEFT_INSTANTIATE(T)                                               \
  template void softmax<T>(const T*, T*, int64_t, int64_t, cudaStream_t); \
  template void softmax_backward<T>(const T*, const T*, T*, int64_t, int64_t, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
