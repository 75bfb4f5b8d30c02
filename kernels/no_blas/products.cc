// The twin of kernels/cpu's library calls (gemm_openblas.cc, gemm_onednn.cc, convolution_onednn.cc)
// in programs that go without those libraries: products by plain loops, in the order of the summed
// extent.
#include "kernels/cpu/convolution_onednn.h"
#include "kernels/cpu/gemm_libraries.h"
#include "proto/base/check.h"

namespace weft::cpu {
namespace {

template <typename T>
T at(const Matrix<T>& x, int64_t row, int64_t column) {
  return x.transposed ? x.data[column * x.row_stride + row] : x.data[row * x.row_stride + column];
}

template <typename T, typename Out>
void multiply_plainly(const Product<T, Out>& p) {
  using S = Sum<T>;
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t j = 0; j < p.n; ++j) {
      S sum{0};
      for (int64_t l = 0; l < p.k; ++l) {
        sum += static_cast<S>(at(p.a, i, l)) * static_cast<S>(at(p.b, l, j));
      }
      Out& out = p.out[i * p.out_stride + j];
      out = static_cast<Out>(p.factor * sum + (p.accumulate ? static_cast<S>(out) : S{0}));
    }
  }
}

[[noreturn]] void no_direct_convolution() {
  WEFT_CHECK(false, "direct convolutions need oneDNN");
  __builtin_unreachable();
}

}  // namespace

void multiply_openblas(const Product<float>& product) { multiply_plainly(product); }
void multiply_openblas(const Product<double>& product) { multiply_plainly(product); }
void reserve_openblas(int) {}
void multiply_onednn(const Product<float>& product) { multiply_plainly(product); }
void multiply_onednn(const Product<bfloat16, float>& product) { multiply_plainly(product); }
void multiply_onednn(const Product<bfloat16>& product) { multiply_plainly(product); }

bool onednn_has_avx512() { return false; }
bool onednn_has_avx512_bf16() { return false; }

template <typename T>
bool onednn_convolves(const ConvolutionSizes&) {
  return false;
}
template <typename T>
bool onednn_convolves_back(const ConvolutionSizes&) {
  return false;
}
template <typename T>
void convolve_onednn(ThreadPool&, const ConvolutionSizes&, const T*, const T*, const T*, T*) {
  no_direct_convolution();
}
template <typename T>
void convolve_back_onednn(ThreadPool&, const ConvolutionSizes&, const T*, const T*, T*) {
  no_direct_convolution();
}
template <typename T>
void convolve_weights_onednn(const ConvolutionSizes&, int64_t, int64_t, const T*, const T*,
                             float*) {
  no_direct_convolution();
}

#define WEFT_CONVOLVE(T)                                                                       \
  template bool onednn_convolves<T>(const ConvolutionSizes&);                                  \
  template bool onednn_convolves_back<T>(const ConvolutionSizes&);                             \
  template void convolve_onednn(ThreadPool&, const ConvolutionSizes&, const T*, const T*,      \
                                const T*, T*);                                                 \
  template void convolve_back_onednn(ThreadPool&, const ConvolutionSizes&, const T*, const T*, \
                                     T*);                                                      \
  template void convolve_weights_onednn(const ConvolutionSizes&, int64_t, int64_t, const T*,   \
                                        const T*, float*);
WEFT_CONVOLVE(float)
WEFT_CONVOLVE(bfloat16)
#undef WEFT_CONVOLVE

}  // namespace weft::cpu
