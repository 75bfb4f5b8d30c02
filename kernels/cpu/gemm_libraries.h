// One product on the calling thread, by one library. Not for users of gemm.h.
//
// Thread safety: from any thread; neither library starts threads of its own: OpenBLAS is told so
// for the process, oneDNN's OpenMP for each calling thread. Ownership: oneDNN's generated code and
// scratch memory are kept a thread and die with it.
#pragma once

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_choice.h"

namespace weft::cpu {

// The arguments of gemm() of one tile; m, n and k are at least 1.
template <typename T, typename Out = T>
struct Product {
  int64_t m, n, k;
  Matrix<T> a, b;
  Out* out;
  int64_t out_stride;
  bool accumulate;
  Sum<T> factor;
  // What the calling thread multiplies next, with the same k: b's columns there. A library may make
  // them ready meanwhile; nobody writes to them until then.
  Matrix<T> next_b = {};
  int64_t next_n = 0;
  bool follows = false;      // this product was the next one of the thread's last
  bool same_b = false;       // ... which had the same columns of b, and no fewer rows
  bool past_caches = false;  // the result is read when they have forgotten it: it may be written so
};

void multiply_openblas(const Product<float>& product);
void multiply_openblas(const Product<double>& product);
// From then on `threads` of them at a time take no memory (environment.h).
void reserve_openblas(int threads);
void multiply_onednn(const Product<float>& product);
void multiply_onednn(const Product<bfloat16, float>& product);
void multiply_onednn(const Product<bfloat16>& product);
// Of our own, where supported(Level::kBf16).
void multiply_pairs(const Product<bfloat16, float>& product);
void multiply_pairs(const Product<bfloat16>& product);
// In fp32, of which a copy of the operands is made a tile: for processors without bf16 products.
void multiply_widened(const Product<bfloat16, float>& product, GemmLibrary fp32);
void multiply_widened(const Product<bfloat16>& product, GemmLibrary fp32);

// By the choice in force.
void multiply(const Product<float>& product);
void multiply(const Product<double>& product);
void multiply(const Product<bfloat16, float>& product);
void multiply(const Product<bfloat16>& product);
// Operations of all products of this process so far, 2 m n k each: for tests and benchmarks.
int64_t multiplied();

// Whether oneDNN generates AVX-512 code here, without which it has no bf16; and whether that code
// has the processor's bf16 instructions.
bool onednn_has_avx512();
bool onednn_has_avx512_bf16();

}  // namespace weft::cpu
