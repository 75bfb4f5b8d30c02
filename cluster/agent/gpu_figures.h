// How large and how fast the GPUs of this machine are, as far as the driver's management library
// (NVML) tells: memory, and rates that follow from clocks, widths and links.
//
// Sources: the tables of the CUDA C++ Programming Guide (operations a clock and multiprocessor),
// nvml.h (versions of NVLink) and the PCI Express base specification (rates of its lanes).
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "proto/node.pb.h"

namespace weft {

// Of several the least of each, as any slot of a node may get any of its GPUs, and ranks wait for
// the slowest; of one in MIG mode those of its first instance. 0: not known.
struct GpuFigures {
  int64_t memory_bytes = 0;
  double flops = 0, half_flops = 0;  // operations a second in large products: fp32; bf16, fp16
  double copy_bytes = 0;             // a second, of its own memory
  double link_bytes = 0;             // a second to a neighbour, one way: NVLink, else PCIe
};

// Of those with these UUIDs; zeros where there is no such library, driver or GPU.
GpuFigures gpu_figures(std::span<const std::string> ids, const char* library = "libnvidia-ml.so.1");

void fill_gpu_figures(const GpuFigures& figures, proto::NodeInfo& node);

}  // namespace weft
