// Matrix products by cuBLASLt, row-major, with what follows them fused in. The algorithm of each
// kind of product is asked for once (cuBLASLt's heuristics) and kept.
//
// Numerical policy: sums in fp32; where the result is a half it is rounded once, on the way out.
// TF32 only if asked for.
//
// Thread safety: one thread at a time. Ownership: owns its handle; the caller keeps operands and
// workspace until the stream has come past.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>

#include "kernels/cuda/cublas_lt.h"
#include "kernels/tensor/dtype.h"

namespace weft::cuda {

// What becomes of the product P [m, n] before it is written. Vectors have n elements of
// out's type, aux [m, n] has rows aux_step apart.
enum class Epilogue {
  kNone,
  kBias,               // P + bias
  kGeluBias,           // aux := P + bias; gelu_tanh(aux)
  kDGeluBiasGradient,  // P gelu_tanh'(aux); bias := its sums over rows
  kBiasGradient,       // P; bias := the sums over rows of b [k, n]
};

// Element (i, j) lies at data[i * row_step + j * column_step]; one of the steps is 1, and rows
// (columns) do not overlap. Matrices of a batch are batch_step apart; 0: the same for all.
struct Operand {
  const void* data = nullptr;
  int64_t row_step = 0, column_step = 0, batch_step = 0;
};

// out [batch, m, n] = alpha a [batch, m, k] b [batch, k, n], rows out_step apart. The product P
// that the epilogue takes is that with what is added to it.
struct Product {
  DType type = DType::kF32;      // of a and b: F32, BF16, F16
  DType out_type = DType::kF32;  // the same, or F32
  int64_t m = 0, n = 0, k = 0, batch = 1;
  Operand a, b;
  void* out = nullptr;
  int64_t out_step = 0, out_batch_step = 0;
  float alpha = 1;
  const void* added = nullptr;  // laid out as out, may be out; added to the product
  bool tf32 = false;
  Epilogue epilogue = Epilogue::kNone;
  void* bias = nullptr;
  void* aux = nullptr;
  int64_t aux_step = 0;
};

class Matmul {
 public:
  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;

  // Error: kUnavailable where the library is missing or refuses.
  static Result<std::unique_ptr<Matmul>> create();
  ~Matmul();
  Matmul(const Matmul&) = delete;
  Matmul& operator=(const Matmul&) = delete;

  // Whether the library has an algorithm for the product, epilogue and alignments included.
  bool supports(const Product& product);

  // m, n and k are at least 1. workspace: kWorkspaceBytes, aligned to 256. Throws
  // StatusError(kUnavailable) where the library has no algorithm or refuses.
  void run(const Product& product, void* workspace, cudaStream_t stream);

  size_t algorithms() const { return algorithms_.size(); }  // kept so far
  size_t library_version() const { return library_.version(); }

 private:
  // Everything but addresses, of which only the alignment counts.
  using Key = std::array<int64_t, 24>;
  struct Descriptions;

  Matmul(const CublasLt& library, cublasLtHandle_t handle) : library_(library), handle_(handle) {}
  static Key key_of(const Product& product);
  // Null where there is none.
  const cublasLtMatmulAlgo_t* algorithm(const Product& product, const Descriptions& descriptions);

  const CublasLt& library_;
  const cublasLtHandle_t handle_;
  std::map<Key, std::optional<cublasLtMatmulAlgo_t>> algorithms_;
};

}  // namespace weft::cuda
