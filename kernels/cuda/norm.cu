// Layer normalization (Ba et al. 2016) and RMS normalization (Zhang and Sennrich 2019) of x, or of
// the sum of x and a residual, a block a row. Numerical policy: fp32; the mean first, then the
// squares of the distances from it (two passes, no cancellation); sums in the block's tree. The sum
// with the residual is rounded to T before it is normalized, as if it had been stored and read.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

template <typename T>
struct RowView {
  const T *x, *residual;  // residual may be null
  T* sum;
  __device__ float at(int64_t i) const {
    if (residual == nullptr) return widen(x[i]);
    return widen(narrow<T>(widen(x[i]) + widen(residual[i])));
  }
};

template <typename T>
__global__ void norm_kernel(NormArguments<T> n) {
  float* partials = shared_memory<float>();
  const float width = static_cast<float>(n.width);
  for (int64_t row = blockIdx.x; row < n.rows; row += gridDim.x) {
    const int64_t start = row * n.width;
    const RowView<T> from{n.x + start, n.residual == nullptr ? nullptr : n.residual + start, n.sum};
    float m = 0.0F;
    if (n.mean != nullptr) {
      float total = 0.0F;
      for (int64_t i = threadIdx.x; i < n.width; i += blockDim.x) total += from.at(i);
      m = block_reduce<Add>(total, partials) / width;
    }
    float squares = 0.0F;
    for (int64_t i = threadIdx.x; i < n.width; i += blockDim.x) {
      squares += (from.at(i) - m) * (from.at(i) - m);
    }
    const float r = 1.0F / sqrtf(block_reduce<Add>(squares, partials) / width + n.epsilon);
    for (int64_t i = threadIdx.x; i < n.width; i += blockDim.x) {
      const float value = from.at(i);
      if (n.sum != nullptr) n.sum[start + i] = narrow<T>(value);
      const float shift = n.beta == nullptr ? 0.0F : widen(n.beta[i]);
      n.y[start + i] = narrow<T>((value - m) * r * widen(n.gamma[i]) + shift);
    }
    if (threadIdx.x != 0) continue;
    if (n.mean != nullptr) n.mean[row] = m;
    n.rstd[row] = r;
  }
}

}  // namespace

template <typename T>
void norm(const NormArguments<T>& arguments, cudaStream_t stream) {
  launch_shared(stream, blocks_of(arguments.rows, 1), row_threads(arguments.width),
                kWarp * sizeof(float), norm_kernel<T>, arguments);
}

#define WEFT_INSTANTIATE(T) template void norm<T>(const NormArguments<T>&, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
