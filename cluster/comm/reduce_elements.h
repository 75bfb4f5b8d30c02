// Element-wise reduction of one buffer into another, shared by the transports.
// Thread safety: pure. A NaN in either operand of kMax and kMin gives NaN, on every rank alike.
#pragma once

#include <cstdint>

#include "worker/parallel/communicator.h"

namespace weft::comm {

// into[i] := into[i] op from[i]; dtype kF32, kF64 or kI64.
void reduce_elements(void* into, const void* from, int64_t count, DType dtype, ReduceOp op);
// WEFT_CHECKs that the dtype can be reduced.
void check_reducible(DType dtype);

}  // namespace weft::comm
