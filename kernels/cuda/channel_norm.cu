// Group and batch norm over x seen as [samples, channels, elements]: rows of `elements`, one a
// sample and channel. Numerical policy: statistics and sums in fp32, two passes, in an order that
// depends on the extents only; results are rounded once. Sums over the samples are sum_middle's.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

constexpr int64_t kShortRow = kWarp;  // up to here a thread sums a row

// What of element i of a row is summed, to two sums.
template <typename T>
struct Values {
  const T* x;
  __device__ float2 of(int64_t i, int64_t) const { return make_float2(widen(x[i]), 0.0F); }
};
template <typename T>
struct SquaresAround {
  const T* x;
  const float* mean;
  __device__ float2 of(int64_t i, int64_t statistic) const {
    const float apart = widen(x[i]) - mean[statistic];
    return make_float2(apart * apart, 0.0F);
  }
};
// dy, and dy times the normalized x.
template <typename T>
struct GradientTerms {
  const T *x, *dy;
  const float *mean, *rstd;
  __device__ float2 of(int64_t i, int64_t statistic) const {
    const float d = widen(dy[i]);
    return make_float2(d, d * ((widen(x[i]) - mean[statistic]) * rstd[statistic]));
  }
};

__device__ inline int64_t statistic_of(const ChannelRows& rows, int64_t row) {
  return rows.together == 0 ? row % rows.channels : row / rows.together;
}

// second may be null.
template <typename Terms>
__global__ void sum_short_rows_kernel(Terms terms, ChannelRows rows, int64_t n, float* first,
                                      float* second) {
  for (int64_t row = first_element(); row < n; row += elements_of_grid()) {
    float a = 0.0F, b = 0.0F;
    for (int64_t i = row * rows.elements; i < (row + 1) * rows.elements; ++i) {
      const float2 term = terms.of(i, statistic_of(rows, row));
      a += term.x;
      b += term.y;
    }
    first[row] = a;
    if (second != nullptr) second[row] = b;
  }
}
template <typename Terms>
__global__ void sum_rows_of_channels_kernel(Terms terms, ChannelRows rows, int64_t n, float* first,
                                            float* second) {
  float* partials = shared_memory<float>();
  for (int64_t row = blockIdx.x; row < n; row += gridDim.x) {
    float a = 0.0F, b = 0.0F;
    const int64_t start = row * rows.elements;
    for (int64_t i = threadIdx.x; i < rows.elements; i += blockDim.x) {
      const float2 term = terms.of(start + i, statistic_of(rows, row));
      a += term.x;
      b += term.y;
    }
    a = block_reduce<Add>(a, partials);
    if (second != nullptr) b = block_reduce<Add>(b, partials);
    if (threadIdx.x == 0) {
      first[row] = a;
      if (second != nullptr) second[row] = b;
    }
  }
}

template <typename Terms>
void sum_rows(const Terms& terms, const ChannelRows& rows, float* first, float* second,
              cudaStream_t stream) {
  const int64_t n = rows.samples * rows.channels;
  if (rows.elements <= kShortRow) {
    launch(stream, blocks_of(n), kThreads, sum_short_rows_kernel<Terms>, terms, rows, n, first,
           second);
  } else {
    launch_shared(stream, blocks_of(n, 1), row_threads(rows.elements), kWarp * sizeof(float),
                  sum_rows_of_channels_kernel<Terms>, terms, rows, n, first, second);
  }
}

// A block a group of `count` elements that lie next to each other.
template <typename T>
__global__ void group_moments_kernel(const T* x, int64_t groups, int64_t count, float epsilon,
                                     float* mean, float* rstd) {
  float* partials = shared_memory<float>();
  const float n = static_cast<float>(count);
  for (int64_t group = blockIdx.x; group < groups; group += gridDim.x) {
    const T* from = x + group * count;
    float total = 0.0F, squares = 0.0F;
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) total += widen(from[i]);
    const float m = block_reduce<Add>(total, partials) / n;
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
      squares += (widen(from[i]) - m) * (widen(from[i]) - m);
    }
    const float variance = block_reduce<Add>(squares, partials) / n;
    if (threadIdx.x == 0) {
      mean[group] = m;
      rstd[group] = 1.0F / sqrtf(variance + epsilon);
    }
  }
}

__global__ void rstd_kernel(const float* variance, int64_t n, float epsilon, float* rstd) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    rstd[i] = 1.0F / sqrtf(variance[i] + epsilon);
  }
}

template <typename T>
__global__ void normalize_kernel(ChannelRows rows, const T* x, const T* gamma, const T* beta,
                                 const float* mean, const float* rstd, int64_t n, T* y) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t row = i / rows.elements, channel = row % rows.channels;
    const int64_t statistic = statistic_of(rows, row);
    const float factor = rstd[statistic] * widen(gamma[channel]);
    y[i] = narrow<T>((widen(x[i]) - mean[statistic]) * factor + widen(beta[channel]));
  }
}

// dx = r gamma dy + slope (x - mean) + offset: the two numbers of each statistic, from the sums of
// its `together` rows, the first of which is of channel (statistic * together) % channels.
template <typename T>
__global__ void slopes_kernel(int64_t statistics, int64_t together, int64_t channels, float count,
                              const T* gamma, const float* rstd, const float* total,
                              const float* along, float* slope, float* offset) {
  for (int64_t s = first_element(); s < statistics; s += elements_of_grid()) {
    float all = 0.0F, all_along = 0.0F;
    for (int64_t row = s * together; row < (s + 1) * together; ++row) {
      const float scale = widen(gamma[row % channels]);
      all += scale * total[row];
      all_along += scale * along[row];
    }
    slope[s] = -rstd[s] * rstd[s] * all_along / count;
    offset[s] = -rstd[s] * all / count;
  }
}

template <typename T>
__global__ void gradient_kernel(ChannelNormGradient<T> g, int64_t n, const float* slope,
                                const float* offset) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t row = i / g.rows.elements, s = statistic_of(g.rows, row);
    const float factor = g.rstd[s] * widen(g.gamma[row % g.rows.channels]);
    const float apart = widen(g.x[i]) - g.mean[s];
    g.dx[i] = narrow<T>(factor * widen(g.dy[i]) + (apart * slope[s] + offset[s]));
  }
}

int64_t elements_of(const ChannelRows& rows) {
  return rows.samples * rows.channels * rows.elements;
}

}  // namespace

template <typename T>
void group_moments(const T* x, int64_t groups, int64_t count, float epsilon, float* mean,
                   float* rstd, cudaStream_t stream) {
  launch_shared(stream, blocks_of(groups, 1), row_threads(count), kWarp * sizeof(float),
                group_moments_kernel<T>, x, groups, count, epsilon, mean, rstd);
}
template <typename T>
void channel_sums(const ChannelRows& rows, const T* x, const float* mean, float* sums,
                  cudaStream_t stream) {
  if (mean == nullptr) {
    sum_rows(Values<T>{x}, rows, sums, nullptr, stream);
  } else {
    sum_rows(SquaresAround<T>{x, mean}, rows, sums, nullptr, stream);
  }
}
void rstd_of(const float* variance, int64_t n, float epsilon, float* rstd, cudaStream_t stream) {
  launch(stream, blocks_of(n), kThreads, rstd_kernel, variance, n, epsilon, rstd);
}
template <typename T>
void normalize_channels(const ChannelRows& rows, const T* x, const T* gamma, const T* beta,
                        const float* mean, const float* rstd, T* y, cudaStream_t stream) {
  const int64_t n = elements_of(rows);
  launch(stream, blocks_of(n), kThreads, normalize_kernel<T>, rows, x, gamma, beta, mean, rstd, n,
         y);
}
template <typename T>
void channel_gradient_sums(const ChannelNormGradient<T>& g, float* total, float* along,
                           cudaStream_t stream) {
  sum_rows(GradientTerms<T>{g.x, g.dy, g.mean, g.rstd}, g.rows, total, along, stream);
}
template <typename T>
void channel_gradient(const ChannelNormGradient<T>& g, const float* total, const float* along,
                      float* scratch, cudaStream_t stream) {
  const bool batch = g.rows.together == 0;
  const int64_t together = batch ? 1 : g.rows.together;
  const int64_t statistics = batch ? g.rows.channels : g.rows.samples * g.rows.channels / together;
  const int64_t n = elements_of(g.rows);
  const float count = static_cast<float>(g.rows.elements * (batch ? g.rows.samples : together));
  launch(stream, blocks_of(statistics), kThreads, slopes_kernel<T>, statistics, together,
         g.rows.channels, count, g.gamma, g.rstd, total, along, scratch, scratch + statistics);
  launch(stream, blocks_of(n), kThreads, gradient_kernel<T>, g, n, scratch, scratch + statistics);
}

#define WEFT_INSTANTIATE(T)                                                                        \
  template void group_moments<T>(const T*, int64_t, int64_t, float, float*, float*, cudaStream_t); \
  template void channel_sums<T>(const ChannelRows&, const T*, const float*, float*, cudaStream_t); \
  template void normalize_channels<T>(const ChannelRows&, const T*, const T*, const T*,            \
                                      const float*, const float*, T*, cudaStream_t);               \
  template void channel_gradient_sums<T>(const ChannelNormGradient<T>&, float*, float*,            \
                                         cudaStream_t);                                            \
  template void channel_gradient<T>(const ChannelNormGradient<T>&, const float*, const float*,     \
                                    float*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
