// Rotary position embedding (Su et al. 2021). Numerical policy: angles in float64, their cosines
// and sines rounded once; the turn in fp32, one rounding.
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace weft::cuda {
namespace {

template <typename T>
__global__ void angles_kernel(const int64_t* positions, const double* frequencies, int64_t n,
                              int64_t pairs, T* cosines, T* sines) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const double angle = static_cast<double>(positions[i / pairs]) * frequencies[i % pairs];
    if constexpr (std::is_same_v<T, double>) {
      cosines[i] = cos(angle);
      sines[i] = sin(angle);
    } else {
      cosines[i] = narrow<T>(static_cast<float>(cos(angle)));
      sines[i] = narrow<T>(static_cast<float>(sin(angle)));
    }
  }
}

// A thread turns one pair, or copies a feature that does not turn.
template <typename T>
__global__ void rotary_kernel(RotaryShape r, int64_t n, const T* x, const T* cosines,
                              const T* sines, T* y) {
  const int64_t items = r.width - r.pairs;  // of a row
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t item = i % items, row = i / items, start = row * r.width;
    if (item >= r.pairs) {
      y[start + item + r.pairs] = x[start + item + r.pairs];
      continue;
    }
    const int64_t token = row / r.rows_of_sample * r.tokens + row % r.tokens;
    const int64_t a = start + (r.interleaved ? 2 * item : item);
    const int64_t b = r.interleaved ? a + 1 : a + r.pairs;
    const float c = widen(cosines[token * r.pairs + item]);
    const float turn = widen(sines[token * r.pairs + item]), s = r.backwards ? -turn : turn;
    const float left = widen(x[a]), right = widen(x[b]);
    y[a] = narrow<T>(left * c - right * s);
    y[b] = narrow<T>(right * c + left * s);
  }
}

}  // namespace

template <typename T>
void rotary_angles(const int64_t* positions, const double* frequencies, int64_t tokens,
                   int64_t pairs, T* cosines, T* sines, cudaStream_t stream) {
  const int64_t n = tokens * pairs;
  launch(stream, blocks_of(n), kThreads, angles_kernel<T>, positions, frequencies, n, pairs,
         cosines, sines);
}
template <typename T>
void rotary(const RotaryShape& shape, const T* x, const T* cosines, const T* sines, T* y,
            cudaStream_t stream) {
  check_arguments(2 * shape.pairs <= shape.width, "rotary: pairs within the width");
  const int64_t n = shape.rows * (shape.width - shape.pairs);
  launch(stream, blocks_of(n), kThreads, rotary_kernel<T>, shape, n, x, cosines, sines, y);
}

#define WEFT_INSTANTIATE(T)                                                               \
  template void rotary_angles<T>(const int64_t*, const double*, int64_t, int64_t, T*, T*, \
                                 cudaStream_t);                                           \
  template void rotary<T>(const RotaryShape&, const T*, const T*, const T*, T*, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE
template void rotary_angles<double>(const int64_t*, const double*, int64_t, int64_t, double*,
                                    double*, cudaStream_t);

}  // namespace weft::cuda
