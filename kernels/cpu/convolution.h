// Convolution over two dims (one dim: a height of 1) as products of matrices: the places that a tap
// reads become a row of a matrix of columns (Chellapilla et al. 2006), a piece of the result at a
// time, so that the columns of a piece stay in the cache.
//
// Legend: N samples, G groups, C and O channels of input and output, together in all groups; x [N,
// C, in], y [N, O, out], weight [O, C / G, kernel]; contiguous, T is float,
// double or, where convolves_in_bf16() says so, bfloat16.
//
// Thread safety: from the rank's compute thread. Invariants: 1. pieces, and so the results, depend
// on the sizes only, not on the pool.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include "kernels/tensor/allocator.h"
#include "kernels/tensor/half.h"
#include "kernels/tensor/thread_pool.h"

namespace weft::cpu {

// y[o, p] = sum over c, k of weight[o, c, k] x[c, p stride - before + k dilation], where there is
// such a place of x.
struct ConvolutionSizes {
  using Pair = std::array<int64_t, 2>;  // height and width

  int64_t samples = 0, groups = 1, channels = 0, out_channels = 0;
  Pair in{}, out{}, kernel{}, stride{1, 1}, before{}, dilation{1, 1};

  int64_t taps() const { return kernel[0] * kernel[1]; }
  int64_t places_in() const { return in[0] * in[1]; }
  int64_t places() const { return out[0] * out[1]; }
  int64_t group_channels() const { return channels / groups; }
  int64_t group_outputs() const { return out_channels / groups; }
  int64_t weights() const { return out_channels * group_channels() * taps(); }
};

// y, with bias [O] or null.
template <typename T>
void convolve(ThreadPool& pool, const ConvolutionSizes& sizes, const T* x, const T* weight,
              const T* bias, T* y);

// The gradient of x, which is also what a transposed convolution computes, given that of y.
template <typename T>
void convolve_back(ThreadPool& pool, const ConvolutionSizes& sizes, const T* dy, const T* weight,
                   T* dx);

// Whether there is code for this in bf16 that leads over the same in fp32: of y and the weight's
// gradient, and of x's gradient.
bool convolves_in_bf16(const ConvolutionSizes& sizes);
bool convolves_back_in_bf16(const ConvolutionSizes& sizes);

// The gradient of the weight (of bfloat16 in fp32): a sum over samples, cut into `blocks` of them
// and merged in one fixed binary tree.
template <typename T>
using WeightSum = std::conditional_t<std::is_same_v<T, bfloat16>, float, T>;
template <typename T>
void convolve_weights(ThreadPool& pool, Allocator& allocator, const ConvolutionSizes& sizes,
                      int64_t blocks, const T* x, const T* dy, WeightSum<T>* dweight);

}  // namespace weft::cpu
