// GELU by tanh (Hendrycks and Gimpel 2016): x/2 (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3),
// which is x sigmoid(2u). Numerical policy: fp32 throughout, expf for the sigmoid.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace weft::cuda {
namespace {

constexpr float kTwoRoot = 1.5957691216057308F;  // 2 sqrt(2/pi)
constexpr float kCube = 0.044715F;

__device__ float gate(float x) { return 1.0F / (1.0F + expf(-kTwoRoot * (x + kCube * x * x * x))); }

__global__ void gelu_kernel(const float* x, float* y, int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) y[i] = x[i] * gate(x[i]);
}

__global__ void gelu_backward_kernel(const float* x, const float* dy, float* dx, int64_t n) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const float at = x[i], s = gate(at);
    dx[i] = dy[i] * (s + at * s * (1.0F - s) * kTwoRoot * (1.0F + 3.0F * kCube * at * at));
  }
}

}  // namespace

void gelu_tanh(const float* x, float* y, int64_t n, cudaStream_t stream) {
  launch(stream, blocks_of(n), kThreads, gelu_kernel, x, y, n);
}

void gelu_tanh_backward(const float* x, const float* dy, float* dx, int64_t n,
                        cudaStream_t stream) {
  launch(stream, blocks_of(n), kThreads, gelu_backward_kernel, x, dy, dx, n);
}

}  // namespace weft::cuda
