// The matrix loads and products of a warp (ldmatrix, mma.sync) as meetings of its 32 lanes;
// kernels/cuda/ptx.cuh says which lane holds what.
//
// Thread safety: none; called by the running thread of the machine.
#pragma once

#include <cstdint>

#include "tests/testing/cuda_on_cpu/machine.h"
#include "tests/testing/cuda_on_cpu/meaning.h"

namespace weft::cuda_on_cpu {

void warp_load(uint32_t (&r)[4], const void* row, bool transposed, const Where& where);
void warp_multiply(Element kind, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                   const Where& where);

}  // namespace weft::cuda_on_cpu
