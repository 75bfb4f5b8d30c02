// Cross-entropy over rows of logits and its gradient, a block a row. Numerical policy: fp32; the
// maximum and the sum of exponentials shifted by it are taken in one pass over the row: each thread
// rescales its sum when its maximum grows (Milakov and Gimelshein 2018), and the threads' sums are
// shifted to the row's maximum before they are added.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

// Loss and lse of each row.
template <typename T>
__global__ void loss_kernel(const T* logits, const int64_t* labels, LossRules rules, int64_t rows,
                            int64_t width, float* loss, float* lse) {
  float* partials = shared_memory<float>();
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* from = logits + row * width;
    float own = -INFINITY, total = 0.0F, plain = 0.0F;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      const float value = widen(from[i]);
      plain += value;
      if (value > own) {
        total *= expf(own - value);
        own = value;
      }
      total += own == -INFINITY ? 0.0F : expf(value - own);
    }
    const float largest = block_reduce<Max>(own, partials);
    total = block_reduce<Add>(own == -INFINITY ? 0.0F : total * expf(own - largest), partials);
    if (rules.smoothing > 0.0F) plain = block_reduce<Add>(plain, partials);
    if (threadIdx.x != 0) continue;
    const int64_t label = labels[row];
    const bool ignored = label == rules.ignore_index;
    const float log_sum = largest == -INFINITY ? largest : largest + logf(total);
    const bool known = label >= 0 && label < width;
    float target = known ? widen(from[label]) : NAN;
    if (rules.smoothing > 0.0F) {
      target += rules.smoothing * (plain / static_cast<float>(width) - target);
    }
    lse[row] = ignored ? 0.0F : log_sum;
    loss[row] = ignored ? 0.0F : log_sum - target;
  }
}

template <typename T>
__global__ void backward_kernel(const T* logits, const int64_t* labels, const float* lse,
                                LossRules rules, const float* dloss, int64_t rows, int64_t width,
                                T* dlogits) {
  const float even = rules.smoothing / static_cast<float>(rules.classes);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const bool ignored = labels[row] == rules.ignore_index;
    const int64_t label = labels[row] - rules.first, start = row * width;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      const float p = expf(widen(logits[start + i]) - lse[row]);
      const float target = even + (i == label ? 1.0F - rules.smoothing : 0.0F);
      dlogits[start + i] = narrow<T>(ignored ? 0.0F : *dloss * (p - target));
    }
  }
}

template <typename T>
__global__ void maximum_kernel(const T* x, int64_t rows, int64_t width, float* out) {
  float* partials = shared_memory<float>();
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    float largest = -INFINITY;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      largest = Max::combine(largest, widen(x[row * width + i]));
    }
    largest = block_reduce<Max>(largest, partials);
    if (threadIdx.x == 0) out[row] = largest;
  }
}

// terms[0, row] = the sum of exponentials shifted by the maximum, terms[1, row] = this shard's part
// of what the loss takes from its log: the label's logit, smoothed.
template <typename T>
__global__ void terms_kernel(const T* logits, const int64_t* labels, const float* maximum,
                             LossRules rules, int64_t rows, int64_t width, float* terms) {
  float* partials = shared_memory<float>();
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* from = logits + row * width;
    const bool ignored = labels[row] == rules.ignore_index;
    const float largest = maximum[row];
    float total = 0.0F, plain = 0.0F;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      const float value = widen(from[i]);
      plain += value;
      total += ignored || largest == -INFINITY ? 0.0F : expf(value - largest);
    }
    total = block_reduce<Add>(total, partials);
    if (rules.smoothing > 0.0F) plain = block_reduce<Add>(plain, partials);
    if (threadIdx.x != 0) continue;
    const int64_t label = labels[row] - rules.first;
    float target = !ignored && label >= 0 && label < width ? widen(from[label]) : 0.0F;
    if (rules.smoothing > 0.0F) {
      target += rules.smoothing * (plain / static_cast<float>(rules.classes) - target);
    }
    terms[row] = total;
    terms[rows + row] = target;
  }
}

__global__ void total_kernel(const int64_t* labels, const float* terms, LossRules rules,
                             int64_t rows, float* maximum_to_lse, float* loss) {
  for (int64_t row = first_element(); row < rows; row += elements_of_grid()) {
    const int64_t label = labels[row];
    const bool ignored = label == rules.ignore_index;
    const bool known = label >= 0 && label < rules.classes;
    const float lse = maximum_to_lse[row] + logf(terms[row]);
    maximum_to_lse[row] = ignored ? 0.0F : lse;
    loss[row] = ignored ? 0.0F : lse - (known ? terms[rows + row] : NAN);
  }
}

}  // namespace

template <typename T>
void cross_entropy(const T* logits, const int64_t* labels, const LossRules& rules, int64_t rows,
                   int64_t width, float* loss, float* lse, cudaStream_t stream) {
  launch_shared(stream, blocks_of(rows, 1), row_threads(width), kWarp * sizeof(float),
                loss_kernel<T>, logits, labels, rules, rows, width, loss, lse);
}
template <typename T>
void cross_entropy_backward(const T* logits, const int64_t* labels, const float* lse,
                            const LossRules& rules, const float* dloss, int64_t rows, int64_t width,
                            T* dlogits, cudaStream_t stream) {
  launch(stream, blocks_of(rows, 1), row_threads(width), backward_kernel<T>, logits, labels, lse,
         rules, dloss, rows, width, dlogits);
}
template <typename T>
void row_maximum(const T* x, int64_t rows, int64_t width, float* out, cudaStream_t stream) {
  launch_shared(stream, blocks_of(rows, 1), row_threads(width), kWarp * sizeof(float),
                maximum_kernel<T>, x, rows, width, out);
}
template <typename T>
void loss_terms(const T* logits, const int64_t* labels, const float* maximum,
                const LossRules& rules, int64_t rows, int64_t width, float* terms,
                cudaStream_t stream) {
  launch_shared(stream, blocks_of(rows, 1), row_threads(width), kWarp * sizeof(float),
                terms_kernel<T>, logits, labels, maximum, rules, rows, width, terms);
}
void loss_total(const int64_t* labels, const float* terms, const LossRules& rules, int64_t rows,
                float* maximum_to_lse, float* loss, cudaStream_t stream) {
  launch(stream, blocks_of(rows), kThreads, total_kernel, labels, terms, rules, rows,
         maximum_to_lse, loss);
}

#define WEFT_INSTANTIATE(T)                                                                      \
  template void cross_entropy<T>(const T*, const int64_t*, const LossRules&, int64_t, int64_t,   \
                                 float*, float*, cudaStream_t);                                  \
  template void cross_entropy_backward<T>(const T*, const int64_t*, const float*,                \
                                          const LossRules&, const float*, int64_t, int64_t, T*,  \
                                          cudaStream_t);                                         \
  template void row_maximum<T>(const T*, int64_t, int64_t, float*, cudaStream_t);                \
  template void loss_terms<T>(const T*, const int64_t*, const float*, const LossRules&, int64_t, \
                              int64_t, float*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
