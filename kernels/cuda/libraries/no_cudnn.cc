// In place of cudnn_attention.cc where there are no headers of cuDNN.
#include "kernels/cuda/cudnn_attention.h"

namespace weft::cuda {

Result<std::unique_ptr<CudnnAttention>> CudnnAttention::create() {
  return fail(Code::kUnavailable, "this program was built without the headers of cuDNN");
}

}  // namespace weft::cuda
