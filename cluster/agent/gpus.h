// The GPUs of this machine, asked of the driver's management library (NVML), which is loaded if it
// is there; and which of them this agent's ranks compute on.
#pragma once

#include <string>
#include <vector>

#include "proto/base/status.h"

namespace weft {

struct MachineGpu {
  std::string name;
  std::string id;    // its UUID, "GPU-8a1f..."
  bool mig = false;  // cut into instances: ranks see one of those instead, which has its own UUID
};

// All, in the order of their PCI addresses; none where there is no such library, driver or GPU.
std::vector<MachineGpu> find_gpus(const char* library = "libnvidia-ml.so.1");

// Those of `found` that `offer` (the agent's --gpus) names: numbers or ids with commas between
// them, or "i/n", the i-th of n equal shares; empty: those that `visible` (CUDA_VISIBLE_DEVICES;
// null: not set) leaves, in its order and up to its first entry that is none. Error:
// kInvalidArgument naming the entry.
Result<std::vector<MachineGpu>> choose_gpus(const std::vector<MachineGpu>& found,
                                            const std::string& offer, const char* visible);

// Takes a lock for each, a file in `folder` that this process holds until it ends, so that agents
// of one machine do not offer the same ones. Those that another agent holds are left out; where
// `all` is wanted they are an error, kFailedPrecondition.
Result<std::vector<MachineGpu>> hold_gpus(std::vector<MachineGpu> gpus, const std::string& folder,
                                          bool all);

}  // namespace weft
