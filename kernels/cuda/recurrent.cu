// The gates of LSTM (Hochreiter, Schmidhuber 1997) and GRU (Cho et al. 2014) cells. Numerical
// policy: elements are widened to fp32, computed in fp32 and rounded once; the backward pass starts
// from the gates as they were rounded.
#include "kernels/cuda/curves.cuh"
#include "kernels/cuda/each.cuh"
#include "kernels/cuda/launch.h"

namespace weft::cuda {
namespace {

__device__ inline float sigmoid_slope(float y) { return y * (1.0F - y); }

// Element i of [rows, width] is unit i % width of a row of `gates` gates.
__device__ inline int64_t gate_at(int64_t i, int64_t width, int gates) {
  return i / width * gates * width + i % width;
}

template <typename T>
__global__ void lstm_gates_kernel(const T* gates, const T* c, T* h, T* next, T* bent, int64_t n,
                                  int64_t width) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t at = gate_at(i, width, 4);
    const float in = sigmoid_of(widen(gates[at])), forget = sigmoid_of(widen(gates[at + width]));
    const float cell = tanhf(widen(gates[at + 2 * width]));
    const float out = sigmoid_of(widen(gates[at + 3 * width]));
    const float state = forget * widen(c[i]) + in * cell;
    bent[at] = narrow<T>(in);
    bent[at + width] = narrow<T>(forget);
    bent[at + 2 * width] = narrow<T>(cell);
    bent[at + 3 * width] = narrow<T>(out);
    next[i] = narrow<T>(state);
    h[i] = narrow<T>(out * tanhf(state));
  }
}

template <typename T>
__global__ void lstm_gates_backward_kernel(const T* bent, const T* c, const T* next, const T* dh,
                                           const T* dnext, T* dgates, T* dc, int64_t n,
                                           int64_t width) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t at = gate_at(i, width, 4);
    const float in = widen(bent[at]), forget = widen(bent[at + width]);
    const float cell = widen(bent[at + 2 * width]), out = widen(bent[at + 3 * width]);
    const float curve = tanhf(widen(next[i])), from_h = dh == nullptr ? 0.0F : widen(dh[i]);
    const float total =
        (dnext == nullptr ? 0.0F : widen(dnext[i])) + from_h * out * (1.0F - curve * curve);
    dgates[at] = narrow<T>(total * cell * sigmoid_slope(in));
    dgates[at + width] = narrow<T>(total * widen(c[i]) * sigmoid_slope(forget));
    dgates[at + 2 * width] = narrow<T>(total * in * (1.0F - cell * cell));
    dgates[at + 3 * width] = narrow<T>(from_h * curve * sigmoid_slope(out));
    dc[i] = narrow<T>(total * forget);
  }
}

template <typename T>
__global__ void gru_gates_kernel(const T* a, const T* b, const T* h, T* next, T* bent, int64_t n,
                                 int64_t width) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t at = gate_at(i, width, 3), last = at + 2 * width;
    const float reset = sigmoid_of(widen(a[at]) + widen(b[at]));
    const float update = sigmoid_of(widen(a[at + width]) + widen(b[at + width]));
    const float fresh = tanhf(widen(a[last]) + reset * widen(b[last]));
    bent[at] = narrow<T>(reset);
    bent[at + width] = narrow<T>(update);
    bent[last] = narrow<T>(fresh);
    next[i] = narrow<T>(fresh + update * (widen(h[i]) - fresh));
  }
}

template <typename T>
__global__ void gru_gates_backward_kernel(const T* bent, const T* b_new, const T* h, const T* dnext,
                                          T* da, T* db, T* dh, int64_t n, int64_t width) {
  for (int64_t i = first_element(); i < n; i += elements_of_grid()) {
    const int64_t at = gate_at(i, width, 3), last = at + 2 * width;
    const float reset = widen(bent[at]), update = widen(bent[at + width]);
    const float fresh = widen(bent[last]), d = widen(dnext[i]);
    const float d_fresh = d * (1.0F - update) * (1.0F - fresh * fresh);
    const T d_reset = narrow<T>(d_fresh * widen(b_new[i]) * sigmoid_slope(reset));
    const T d_update = narrow<T>(d * (widen(h[i]) - fresh) * sigmoid_slope(update));
    da[at] = db[at] = d_reset;
    da[at + width] = db[at + width] = d_update;
    da[last] = narrow<T>(d_fresh);
    db[last] = narrow<T>(d_fresh * reset);
    dh[i] = narrow<T>(d * update);
  }
}

}  // namespace

template <typename T>
void lstm_gates(const T* gates, const T* c, T* h, T* next, T* bent, int64_t rows, int64_t width,
                cudaStream_t stream) {
  const int64_t n = rows * width;
  launch(stream, blocks_of(n), kThreads, lstm_gates_kernel<T>, gates, c, h, next, bent, n, width);
}
template <typename T>
void lstm_gates_backward(const T* bent, const T* c, const T* next, Optional<T> dh,
                         Optional<T> dnext, T* dgates, T* dc, int64_t rows, int64_t width,
                         cudaStream_t stream) {
  const int64_t n = rows * width;
  launch(stream, blocks_of(n), kThreads, lstm_gates_backward_kernel<T>, bent, c, next, dh, dnext,
         dgates, dc, n, width);
}
template <typename T>
void gru_gates(const T* a, const T* b, const T* h, T* next, T* bent, int64_t rows, int64_t width,
               cudaStream_t stream) {
  const int64_t n = rows * width;
  launch(stream, blocks_of(n), kThreads, gru_gates_kernel<T>, a, b, h, next, bent, n, width);
}
template <typename T>
void gru_gates_backward(const T* bent, const T* b_new, const T* h, const T* dnext, T* da, T* db,
                        T* dh, int64_t rows, int64_t width, cudaStream_t stream) {
  const int64_t n = rows * width;
  launch(stream, blocks_of(n), kThreads, gru_gates_backward_kernel<T>, bent, b_new, h, dnext, da,
         db, dh, n, width);
}

#define WEFT_INSTANTIATE(T)                                                                        \
  template void lstm_gates<T>(const T*, const T*, T*, T*, T*, int64_t, int64_t, cudaStream_t);     \
  template void lstm_gates_backward<T>(const T*, const T*, const T*, Optional<T>, Optional<T>, T*, \
                                       T*, int64_t, int64_t, cudaStream_t);                        \
  template void gru_gates<T>(const T*, const T*, const T*, T*, T*, int64_t, int64_t,               \
                             cudaStream_t);                                                        \
  template void gru_gates_backward<T>(const T*, const T*, const T*, const T*, T*, T*, T*, int64_t, \
                                      int64_t, cudaStream_t);
WEFT_FOR_FLOATING(WEFT_INSTANTIATE)
#undef WEFT_INSTANTIATE

}  // namespace weft::cuda
