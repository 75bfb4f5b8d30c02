// Convolutions by oneDNN's direct kernels, which read and write blocked layouts: a few samples at a
// time are brought into them and back, single-threaded, on each thread of the pool. Not for users
// of convolution.h.
//
// Thread safety: as convolution.h. Ownership: generated code and blocked copies are kept a thread
// and die with it.
#pragma once

#include "kernels/cpu/convolution.h"

namespace weft::cpu {

// Whether it leads over products of columns: by the sizes and the processor.
bool onednn_convolves(const ConvolutionSizes& sizes);
// The gradient of x: where there are few channels, its blocks are mostly padding.
bool onednn_convolves_back(const ConvolutionSizes& sizes);

void convolve_onednn(ThreadPool& pool, const ConvolutionSizes& sizes, const float* x,
                     const float* weight, const float* bias, float* y);
void convolve_back_onednn(ThreadPool& pool, const ConvolutionSizes& sizes, const float* dy,
                          const float* weight, float* dx);
// The sum over samples [begin, end), on the calling thread.
void convolve_weights_onednn(const ConvolutionSizes& sizes, int64_t begin, int64_t end,
                             const float* x, const float* dy, float* dweight);

}  // namespace weft::cpu
