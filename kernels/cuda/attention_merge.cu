// Merges partial attention outputs by their log-sum-exps, a warp a row: with the weights w =
// exp(lse
// - max), into := (w_a a + w_b b) / (w_a + w_b). Numerical policy: fp32.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace weft::cuda {
namespace {

__global__ void merge_kernel(float* into, float* into_lse, const float* other,
                             const float* other_lse, int64_t rows, int64_t width) {
  const int64_t warps = kThreads / kWarp, warp = threadIdx.x / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int64_t row = blockIdx.x * warps + warp; row < rows; row += gridDim.x * warps) {
    const float lse_a = into_lse[row], lse_b = other_lse[row];
    __syncwarp();  // all have read before lane 0 writes
    if (lse_b == -INFINITY) continue;
    const float largest = fmaxf(lse_a, lse_b);
    const float a = expf(lse_a - largest), b = expf(lse_b - largest);
    for (int64_t i = row * width + lane; i < (row + 1) * width; i += kWarp) {
      into[i] = (a * into[i] + b * other[i]) / (a + b);
    }
    if (lane == 0) into_lse[row] = largest + logf(a + b);
  }
}

}  // namespace

void attention_merge(float* into, float* into_lse, const float* other, const float* other_lse,
                     int64_t rows, int64_t width, cudaStream_t stream) {
  launch(stream, blocks_of(rows, kThreads / kWarp), kThreads, merge_kernel, into, into_lse, other,
         other_lse, rows, width);
}

}  // namespace weft::cuda
