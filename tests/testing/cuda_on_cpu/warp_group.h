// Bulk copies by tensor maps and the products of a warp group (cp.async.bulk.tensor, wgmma), as
// kernels/cuda/ptx_sm90.cuh has them.
//
// Found and thrown as a Fault: threads of a group that do not agree on a product; a product without
// a fence behind the last wait; matrices outside shared memory. While a product is under way its
// sums are NaN, and what is written there is lost.
//
// Thread safety: none; called by the running thread of the machine.
#pragma once

#include <cstdint>

#include "tests/testing/cuda_on_cpu/machine.h"
#include "tests/testing/cuda_on_cpu/meaning.h"
#include "tests/testing/cuda_on_cpu/tensor_map.h"

namespace weft::cuda_on_cpu {

uint32_t shared_address(const void* shared);

// at: of features, tokens, heads, rows.
void copy_box(void* to_shared, const cuda::TensorMap& map, const int (&at)[4], void* barrier,
              const Where& where);

struct GroupProduct {
  Element kind;
  float* d;  // columns / 2 of them
  int columns;
  bool accumulate;
  const uint32_t* registers;  // the left operand, by four; null: it lies in shared memory
  uint64_t a, b;              // matrices
};
// Of 64 rows. The right operand lies by columns if the left one is in registers.
void group_multiply(const GroupProduct& product, const Where& where);
void group_fence();
void group_wait(int groups_left, const Where& where);

}  // namespace weft::cuda_on_cpu
