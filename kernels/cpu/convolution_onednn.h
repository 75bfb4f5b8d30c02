// Convolutions by oneDNN's direct kernels, which read and write blocked layouts: a few samples at a
// time are brought into them and back, single-threaded, on each thread of the pool. Not for users
// of convolution.h.
//
// Thread safety: as convolution.h. Ownership: generated code and blocked copies are kept a thread
// and die with it.
#pragma once

#include "kernels/cpu/convolution.h"
#include "kernels/tensor/half.h"

namespace weft::cpu {

// T is float or bfloat16; of bfloat16 the processor has to have the instructions, results are
// summed in fp32 and rounded once, the bias included.

// Whether it leads over products of columns: by the sizes and the processor.
template <typename T>
bool onednn_convolves(const ConvolutionSizes& sizes);
// The gradient of x: where there are few channels, its blocks are mostly padding.
template <typename T>
bool onednn_convolves_back(const ConvolutionSizes& sizes);

template <typename T>
void convolve_onednn(ThreadPool& pool, const ConvolutionSizes& sizes, const T* x, const T* weight,
                     const T* bias, T* y);
template <typename T>
void convolve_back_onednn(ThreadPool& pool, const ConvolutionSizes& sizes, const T* dy,
                          const T* weight, T* dx);
// The sum over samples [begin, end), on the calling thread.
template <typename T>
void convolve_weights_onednn(const ConvolutionSizes& sizes, int64_t begin, int64_t end, const T* x,
                             const T* dy, float* dweight);

}  // namespace weft::cpu
