// Attention by cuDNN's fused kernels: the same meaning as attention.h, of the calls that those
// take, which are bfloat16 and float16, heads of up to 128 features in multiples of 8, all keys
// visible or none later than the query (also with a window behind it), a scale above 0, and
// nothing else.
//
// Numerical policy: as attention.h; the statistics are natural log-sum-exps. `repeatable`: the same
// bits every time, for which the gradients of the scores go through memory (2 bytes a score), else
// those of the queries are sums in any order.
//
// Thread safety: one thread at a time. Ownership: owns its handle and what was planned; the caller
// keeps operands and workspace until the stream has come past.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "kernels/cuda/attention.h"
#include "kernels/tensor/dtype.h"
#include "proto/base/status.h"

namespace weft::cuda {

struct CudnnCall {
  bool backward = false;
  bool repeatable = true;
  DType type = DType::kBF16;
  AttentionShape shape;
  double scale = 1;
  bool causal = false;
  int64_t window_left = -1;           // only where causal
  AttentionHeads<void> q, k, v, out;  // of a forward call, `out` is the result
  float* log_sum_exp = nullptr;       // [rows, heads, queries]
  AttentionHeads<void> d_out, dq, dk, dv;
};

class CudnnAttention {
 public:
  // Error: kUnavailable where the library is missing or too old.
  static Result<std::unique_ptr<CudnnAttention>> create();
  virtual ~CudnnAttention() = default;

  // Whether backward calls may have keys that are no multiple of 128, which releases up to 9.15 sum
  // up wrong.
  virtual bool takes_partial_tiles() const = 0;
  // Whether a call of this kind was planned before (or refused).
  virtual bool knows(const CudnnCall& call) const = 0;
  // Plans such calls where it does not know them, which takes long and waits for the device. Bytes
  // of device memory that they need; absent where the library does not take them.
  virtual std::optional<int64_t> workspace_bytes(const CudnnCall& call) = 0;
  // workspace: that many bytes, aligned to 256. Throws StatusError(kUnavailable).
  virtual void run(const CudnnCall& call, void* workspace, cudaStream_t stream) = 0;
};

}  // namespace weft::cuda
