// Gives weft-worker-cuda, built over GPUs made of fibers, the machine that weft-agent sees: the
// GPUs that NVML tells of, ranks of NCCL that are processes, and the libraries but for those named
// in a file `absent` in the first folder of LD_LIBRARY_PATH.
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "cluster/agent/gpus.h"
#include "tests/testing/cuda_on_cpu/libraries/installed.h"
#include "tests/testing/cuda_on_cpu/streams.h"
#include "tests/testing/nccl_on_cpu/nccl_on_cpu.h"

namespace weft {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);  // NOLINT: before main
  return value == nullptr ? "" : value;
}

// GPU-0000000a-0000-0000-0000-000000000000 is number 10.
int number_of(const MachineGpu& gpu) {
  constexpr int kInstance = 0x40000000;  // of a GPU in MIG mode, the one that is seen in its place
  const int number = std::stoi(gpu.id.substr(4, 8), nullptr, 16);
  return gpu.mig ? kInstance + number : number;
}

const bool prepared = [] {
  std::vector<int> numbers;
  for (const MachineGpu& gpu : find_gpus()) numbers.push_back(number_of(gpu));
  cuda_on_cpu::set_gpu_numbers(numbers);
  const std::string libraries = variable("LD_LIBRARY_PATH");
  std::ifstream absent(libraries.substr(0, libraries.find(':')) + "/absent");
  for (std::string name; absent >> name;) cuda_on_cpu::lose_library(name);
  nccl_on_cpu::meet_in(variable("TMPDIR"));
  return true;
}();

}  // namespace
}  // namespace weft
