// The GPUs of this machine, asked of the driver's management library (NVML), which is loaded if it
// is there.
#pragma once

#include <string>
#include <vector>

namespace weft {

// Their names; none where there is no such library, driver or GPU.
std::vector<std::string> gpu_names(const char* library = "libnvidia-ml.so.1");

}  // namespace weft
