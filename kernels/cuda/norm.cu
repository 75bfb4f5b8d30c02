// Layer normalization (Ba et al. 2016) and RMS normalization (Zhang and Sennrich 2019) of x, or of
// the sum of x and a residual. Numerical policy: fp32; the mean first, then the squares of the
// distances from it (two passes, no cancellation); sums as rows.cuh says; gamma and beta are fp32
// whatever x is, as a half type takes in no small update beside 1. The sum with the residual
// is rounded to T before it is normalized, as if it had been stored and read.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/rows.cuh"

namespace weft::cuda {
namespace {

template <typename T, int kWide>
__device__ Packed<T, kWide> rounded_sum(const Packed<T, kWide>& a, const Packed<T, kWide>& b) {
  const Vector<float, kWide> first = widened(a), second = widened(b);
  Vector<T, kWide> sum;
  WEFT_UNROLL
  for (int j = 0; j < kWide; ++j) sum.at[j] = narrow<T>(first.at[j] + second.at[j]);
  return packed(sum);
}

template <int kWide>
struct Weights {
  Vector<float, kWide> gamma, beta;
};

template <typename T, int kKeep, int kThreads>
__global__ void __launch_bounds__(kRowThreads) norm_kernel(NormArguments<T> n, bool vectors) {
  const bool aligned = kKeep > 0 || vectors;
  constexpr int kWide = kVectorWidth<T>;
  float* partials = shared_memory<float>();
  const float width = static_cast<float>(n.width);
  for (int64_t row = first_row(); row < n.rows; row += rows_of_grid()) {
    const int64_t start = row * n.width;
    const T *x_row = n.x + start, *added = n.residual == nullptr ? nullptr : n.residual + start;
    Packed<T, kWide> kept[kKeep > 0 ? kKeep : 1];
    const int64_t kept_width = kKeep > 0 ? n.width : 0;
    for_vectors<kKeep, kThreads, kWide>(
        kept_width, [&](int k, int64_t at, int) { kept[k] = load_packed<kWide>(x_row + at); });
    if (added != nullptr) {
      for_vectors<kKeep, kThreads, kWide>(kept_width, [&](int k, int64_t at, int) {
        kept[k] = rounded_sum(kept[k], load_packed<kWide>(added + at));
      });
    }
    // What is normalized.
    const auto values = [&](int k, int64_t at, int count) {
      if (kKeep > 0) return kept[k];
      const auto own = load_some_packed<kWide>(x_row + at, count, aligned);
      if (added == nullptr) return own;
      return rounded_sum(own, load_some_packed<kWide>(added + at, count, aligned));
    };
    float m = 0.0F;
    if (n.mean != nullptr) {
      float total = 0.0F;
      for_vectors<kKeep, kThreads, kWide>(n.width, [&](int k, int64_t at, int count) {
        const auto x = widened(values(k, at, count));
        WEFT_UNROLL
        for (int j = 0; j < kWide; ++j) total += j < count ? x.at[j] : 0.0F;
      });
      m = row_reduce<Add, kThreads>(total, partials) / width;
    }
    float squares = 0.0F;
    for_vectors<kKeep, kThreads, kWide>(n.width, [&](int k, int64_t at, int count) {
      const auto x = widened(values(k, at, count));
      WEFT_UNROLL
      for (int j = 0; j < kWide; ++j) {
        const float distance = x.at[j] - m;
        squares += j < count ? distance * distance : 0.0F;
      }
    });
    const float r = 1.0F / sqrtf(row_reduce<Add, kThreads>(squares, partials) / width + n.epsilon);
    const auto weights = [&](int64_t at, int count) {
      Weights<kWide> loaded{load_some_floats<kWide>(n.gamma + at, count, aligned), {}};
      if (n.beta != nullptr) loaded.beta = load_some_floats<kWide>(n.beta + at, count, aligned);
      return loaded;
    };
    for_loaded_vectors<kKeep, kThreads, kWide>(
        n.width, weights, [&](int k, int64_t at, int count, const Weights<kWide>& loaded) {
          const Packed<T, kWide> own = values(k, at, count);
          if (n.sum != nullptr) store_some(n.sum + start + at, unpack(own), count, aligned);
          const auto x = widened(own);
          Vector<T, kWide> y;
          WEFT_UNROLL
          for (int j = 0; j < kWide; ++j) {
            y.at[j] = narrow<T>((x.at[j] - m) * r * loaded.gamma.at[j] + loaded.beta.at[j]);
          }
          store_some(n.y + start + at, y, count, aligned);
        });
    if (threadIdx.x != 0) continue;
    if (n.mean != nullptr) n.mean[row] = m;
    n.rstd[row] = r;
  }
}

}  // namespace

template <typename T>
void norm(const NormArguments<T>& n, cudaStream_t stream) {
  const bool aligned =
      (rows_take_vectors<T>)(n.width, n.x, n.residual, n.gamma, n.beta, n.sum, n.y);
  const dim3 block = row_block<T>(n.width);
  with_kept<T>(n.width, aligned, [&]<int kKeep, int kThreads>() {
    launch_shared(stream, blocks_of_rows(n.rows, block), block, kWarp * sizeof(float),
                  norm_kernel<T, kKeep, kThreads>, n, aligned);
  });
}

#define WEFT_INSTANTIATE(T) template void norm<T>(const NormArguments<T>&, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
