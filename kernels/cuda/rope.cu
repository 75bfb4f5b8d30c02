// Rotary position embedding. Numerical policy: angles, sines and cosines in fp32 (as the reference
// implementations of Llama), the turn in fp32, one rounding.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

// A thread turns one pair, or copies a feature that does not turn.
template <typename T>
__global__ void rope_kernel(RopeArguments r, int64_t n, const T* x, T* y) {
  const int64_t items = r.width - r.pairs;  // of a head
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t item = i % items, start = i / items * r.width;
    if (item >= r.pairs) {
      y[start + item + r.pairs] = x[start + item + r.pairs];
      continue;
    }
    const int64_t token = i / items / r.heads;
    const int64_t a = start + (r.interleaved ? 2 * item : item);
    const int64_t b = r.interleaved ? a + 1 : a + r.pairs;
    const float angle = static_cast<float>(r.positions[token]) * r.inverse_frequency[item];
    const float c = cosf(angle), s = r.backwards ? -sinf(angle) : sinf(angle);
    const float left = widen(x[a]), right = widen(x[b]);
    y[a] = narrow<T>(left * c - right * s);
    y[b] = narrow<T>(right * c + left * s);
  }
}

}  // namespace

template <typename T>
void rope(const RopeArguments& arguments, const T* x, T* y, cudaStream_t stream) {
  check_arguments(2 * arguments.pairs <= arguments.width, "rope: pairs within the width");
  const int64_t n = arguments.tokens * arguments.heads * (arguments.width - arguments.pairs);
  launch(stream, blocks_of(n), kThreads, rope_kernel<T>, arguments, n, x, y);
}

#define WEFT_INSTANTIATE(T) template void rope<T>(const RopeArguments&, const T*, T*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
