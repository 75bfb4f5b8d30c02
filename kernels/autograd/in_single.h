// An op over half types that has no kernel of its own for them: it runs in fp32.
//
// Inputs of half types are cast to fp32, integer ones are left alone; results are rounded to the
// inputs' half type (fp32 where the inputs are of several floating types, unless these are weights
// that the op takes so) but for those that Op::rounds excepts. The vjp runs in fp32 too, and its
// gradients are left in fp32: the tape rounds those of results, leaves keep them. Of what the op
// saves, inputs and the first result are kept in half and cast again; the rest (row statistics)
// stays in fp32.
#pragma once

#include <memory>

#include "kernels/autograd/op.h"

namespace weft {

// Whether the op has half inputs that it cannot take as they are.
bool needs_single(const Op& op, std::span<const Tensor> inputs);

std::unique_ptr<Op> in_single(std::unique_ptr<Op> op);

}  // namespace weft
