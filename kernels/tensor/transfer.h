// Between devices. Reading from a GPU waits for its stream, so it is done on purpose and rarely:
// the loss, the gradient norm, a checkpoint.
//
// Thread safety: as the streams involved.
#pragma once

#include "kernels/tensor/tensor.h"

namespace weft {

// x itself where it lies on target's device, else a contiguous copy there, complete on return where
// the target is the host. Not recorded.
Tensor to_allocator(const Tensor& x, Allocator& target);

// The only element of a tensor of any dtype.
double read_scalar(const Tensor& x);

}  // namespace weft
