// Cross-entropy over rows of logits and its gradient, a block a row. Numerical policy: fp32; the
// maximum and the sum of exponentials shifted by it are taken in one pass over the row: each thread
// rescales its sum when its maximum grows (Milakov and Gimelshein 2018), and the threads' sums are
// shifted to the row's maximum before they are added.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace weft::cuda {
namespace {

__global__ void loss_kernel(const float* logits, const int64_t* labels, int64_t ignore_index,
                            int64_t rows, int64_t width, float* loss, float* lse) {
  __shared__ float partials[kWarp];
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const float* from = logits + row * width;
    float own = -INFINITY, total = 0.0F;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      const float value = from[i];
      if (value > own) {
        total *= expf(own - value);
        own = value;
      }
      total += own == -INFINITY ? 0.0F : expf(value - own);
    }
    const float largest = block_reduce<Max>(own, partials);
    total = block_reduce<Add>(own == -INFINITY ? 0.0F : total * expf(own - largest), partials);
    if (threadIdx.x != 0) continue;
    const int64_t label = labels[row];
    const bool ignored = label == ignore_index;
    const float log_sum = largest == -INFINITY ? largest : largest + logf(total);
    lse[row] = ignored ? 0.0F : log_sum;
    const bool known = label >= 0 && label < width;
    loss[row] = ignored ? 0.0F : log_sum - (known ? from[label] : NAN);
  }
}

__global__ void backward_kernel(const float* logits, const int64_t* labels, const float* lse,
                                int64_t ignore_index, float dloss, int64_t rows, int64_t width,
                                float* dlogits) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t label = labels[row], start = row * width;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      const float p = expf(logits[start + i] - lse[row]);
      const float slope = i == label ? p - 1.0F : p;
      dlogits[start + i] = label == ignore_index ? 0.0F : dloss * slope;
    }
  }
}

}  // namespace

void cross_entropy(const float* logits, const int64_t* labels, int64_t ignore_index, int64_t rows,
                   int64_t width, float* loss, float* lse, cudaStream_t stream) {
  launch(stream, blocks_of(rows, 1), row_threads(width), loss_kernel, logits, labels, ignore_index,
         rows, width, loss, lse);
}

void cross_entropy_backward(const float* logits, const int64_t* labels, const float* lse,
                            int64_t ignore_index, float dloss, int64_t rows, int64_t width,
                            float* dlogits, cudaStream_t stream) {
  launch(stream, blocks_of(rows, 1), row_threads(width), backward_kernel, logits, labels, lse,
         ignore_index, dloss, rows, width, dlogits);
}

}  // namespace weft::cuda
