// What kernels do with a number of data that names nothing: they leave it out, and note it for the
// host, which looks when it waits anyway. The first launch that notes one keeps its note; of its
// threads, one.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/kernels.h"

namespace weft::cuda {

__device__ inline bool inside(int64_t number, int64_t end) { return number >= 0 && number < end; }

__device__ inline void note(const Outside& outside, int64_t value, int64_t end, int64_t blank = 0) {
  if (outside.note == nullptr || atomicCAS(&outside.note->taken, 0U, 1U) != 0U) return;
  outside.note->found = {outside.numbers, value, end, blank};
}

// Whether the number is in [0, end).
__device__ inline bool noted_inside(const Outside& outside, int64_t number, int64_t end) {
  if (inside(number, end)) return true;
  note(outside, number, end);
  return false;
}

}  // namespace weft::cuda
