#include <string>

#include "kernels/cuda/launch.h"
#include "proto/base/check.h"
#include "proto/base/status.h"

namespace weft::cuda {

void throw_cuda_error(cudaError_t error, const char* what) {
  throw StatusError(Status(Code::kUnavailable, std::string(what) + " was refused by the device: " +
                                                   cudaGetErrorString(error)));
}

void check_arguments(bool ok, const char* rule) { WEFT_CHECK(ok, "{}", rule); }

}  // namespace weft::cuda
