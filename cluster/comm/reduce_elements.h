// Element-wise reduction of buffers, shared by the transports. Sums of half types are taken in fp32
// and rounded once.
// Thread safety: pure; a HalfSum is one thread's. A NaN in either operand of kMax and kMin gives
// NaN, on every rank alike.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/parallel/communicator.h"

namespace weft::comm {

// WEFT_CHECKs that the dtype can be reduced: floating types and kI64.
void check_reducible(DType dtype);

// into[i] := into[i] op from[i]; a sum of half types is rounded at each call.
void reduce_elements(void* into, const void* from, int64_t count, DType dtype, ReduceOp op);

// out[i] := terms[0][i] op terms[1][i] op ..., in that order; out may be terms[0].
void reduce_terms(void* out, std::span<const void* const> terms, int64_t count, DType dtype,
                  ReduceOp op);

// A running sum of a half type that starts at what `into` holds.
class HalfSum {
 public:
  HalfSum(void* into, int64_t count, DType dtype);
  void add(const void* from, int64_t first, int64_t count);  // elements from `first` on
  void finish();                                             // rounds into `into`

 private:
  void* const into_;
  const DType dtype_;
  std::vector<float> sum_;
};

}  // namespace weft::comm
