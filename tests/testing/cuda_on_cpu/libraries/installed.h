// Which of NVIDIA's libraries the machine with the played GPUs has: all that no test takes away.
//
// Thread safety: lose_library() comes first.
#pragma once

#include <string>

#include "proto/base/status.h"

namespace weft::cuda_on_cpu {

void lose_library(const std::string& name);
// Error: that of looking for a library that is not there.
Status look_for_library(const std::string& name);

}  // namespace weft::cuda_on_cpu
