// Convolution (cross-correlation: taps are not flipped) and pooling over one or two spatial dims.
//
// Legend: N samples, C and O channels, L or H, W places, K or Kh, Kw taps of a window. Tensors are
// [N, C, L] or [N, C, H, W]; numbers in a form are one for each spatial dim, the outermost first,
// and an absent list is the default for all.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/autograd/op.h"

namespace weft::ops {

struct ConvolutionForm {
  std::vector<int64_t> stride = {};    // 1
  std::vector<int64_t> before = {};    // 0: zeros ahead of each dim
  std::vector<int64_t> after = {};     // as `before`: zeros behind it
  std::vector<int64_t> dilation = {};  // 1: steps between the taps
  int64_t groups = 1;  // channels of input and output in so many groups of their own
};
// Of one dim, whose output at a place depends on nothing after it; as long as the input.
ConvolutionForm causal_form(int64_t kernel, int64_t dilation = 1);

// weight [O, C / groups, K..], bias [O] or an empty handle -> [N, O, ..], of extent
// (extent + before + after - dilation (K - 1) - 1) / stride + 1, rounded down, which is at least 1
// unless the input is empty. The gradient of the weight is a sum over samples, which honours
// Context::block_count.
Tensor convolution(Context& cx, const Tensor& x, const Tensor& weight, const Tensor& bias,
                   const ConvolutionForm& form = {});

// The gradient of convolution() as an op of its own (Zeiler et al. 2010): weight [C, O / groups,
// K..], bias [O] or an empty handle -> [N, O, ..], of extent (extent - 1) stride - before - after +
// dilation (K - 1) + output_padding + 1, with output_padding < stride for each dim (absent: 0).
Tensor transposed_convolution(Context& cx, const Tensor& x, const Tensor& weight,
                              const Tensor& bias, const ConvolutionForm& form = {},
                              const std::vector<int64_t>& output_padding = {});

// ---- pooling (pooling.cc): padding at most half of the window
struct Window {
  std::vector<int64_t> kernel;
  std::vector<int64_t> stride = {};   // as the kernel
  std::vector<int64_t> padding = {};  // 0, on both sides
};
// The largest of each window, padding aside; the gradient goes to its first place. A NaN is the
// largest.
Tensor max_pool(Context& cx, const Tensor& x, const Window& window);
// The mean of each window; count_padding: zeros of the padding are counted as elements.
Tensor average_pool(Context& cx, const Tensor& x, const Window& window, bool count_padding = true);
// To the given extents: place i of m averages the places [i n / m, (i + 1) n / m) of n, begin
// rounded down and end up.
Tensor adaptive_average_pool(Context& cx, const Tensor& x, const std::vector<int64_t>& extents);

}  // namespace weft::ops
