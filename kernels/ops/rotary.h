// Rotary position embedding (Su et al. 2021).
#pragma once

#include "kernels/autograd/op.h"

namespace weft::ops {

enum class RotaryForm {
  kInterleaved,  // pairs (0, 1), (2, 3), ..: the paper, GPT-J
  kHalves,       // pairs (0, R / 2), (1, R / 2 + 1), ..: GPT-NeoX, Llama
};

// x [..., T, D], cos and sin [T, R / 2] or [B, T, R / 2] with x [B, ..., T, D]: the first R <= D
// features of each token are turned pair by pair, (p, q) -> (p cos - q sin, q cos + p sin), the
// rest is kept. Angles are the model's business (frequencies, their scalings, any positions) and
// constants: no gradient. Any strides of x.
Tensor rotary(Context& cx, const Tensor& x, const Tensor& cos, const Tensor& sin, RotaryForm form);

// cos and sin of position * frequency, computed in double: positions int64 [...], frequencies
// float64 [R / 2] -> [..., R / 2] of `dtype` (F32 or F64).
struct Angles {
  Tensor cos, sin;
};
Angles rotary_angles(Context& cx, const Tensor& positions, const Tensor& frequencies, DType dtype);

}  // namespace weft::ops
