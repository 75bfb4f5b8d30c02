#include "cluster/agent/gpu_figures.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <memory>

namespace weft {
namespace {

// The part of nvml.h that is asked for (NVML API reference, release 13).
constexpr int kSuccess = 0;
constexpr unsigned kMultiprocessorClock = 1, kMemoryClock = 2;  // MHz
constexpr unsigned kLinksMax = 18;
struct Memory {
  unsigned long long total = 0, free = 0, used = 0;
};
struct Attributes {  // nvmlDeviceAttributes_t
  unsigned multiprocessors = 0, copy_engines = 0, decoders = 0, encoders = 0, jpeg = 0, ofa = 0,
           gpu_slices = 0, compute_slices = 0;
  unsigned long long memory_mib = 0;
};

// Of the peak, what large products reach; of a link's rate, what payload does (the rest are
// headers).
constexpr double kProducts = 0.75, kPcie = 0.8;

struct Close {
  void operator()(void* library) const { ::dlclose(library); }
};

// One library and one device; a function that is missing, or refuses, gives zeros.
class Nvml {
 public:
  explicit Nvml(void* library) : library_(library) {}

  template <typename... Arguments>
  bool call(const char* name, Arguments... arguments) const {
    const auto function = reinterpret_cast<int (*)(Arguments...)>(::dlsym(library_, name));
    return function != nullptr && function(arguments...) == kSuccess;
  }
  template <typename... Arguments>
  unsigned number(const char* name, Arguments... arguments) const {
    unsigned value = 0;
    return call(name, arguments..., &value) ? value : 0;
  }

 private:
  void* library_;
};

// Operations a clock and multiprocessor of dense bf16 products on tensor cores, by compute
// capability.
double half_operations(int capability) {
  if (capability >= 100 && capability < 120) return 8192;
  if (capability >= 90 && capability < 100) return 4096;
  if (capability == 80) return 2048;
  return capability >= 70 ? 1024 : 0;
}

double cores_of_multiprocessor(int capability) { return capability <= 80 ? 64 : 128; }

double link_rate(const Nvml& nvml, void* gpu) {
  double nvlink = 0;
  for (unsigned link = 0; link < kLinksMax; ++link) {
    if (nvml.number("nvmlDeviceGetNvLinkState", gpu, link) == 0) continue;
    const unsigned version = nvml.number("nvmlDeviceGetNvLinkVersion", gpu, link);
    nvlink += version <= 1 ? 20e9 : version < 7 ? 25e9 : 50e9;  // 7: NVLink 5.0
  }
  if (nvlink > 0) return nvlink;
  constexpr std::array kLane = {0.0, 0.25e9, 0.5e9, 0.985e9, 1.969e9, 3.938e9, 7.563e9};
  const size_t generation = nvml.number("nvmlDeviceGetMaxPcieLinkGeneration", gpu);
  const unsigned width = nvml.number("nvmlDeviceGetMaxPcieLinkWidth", gpu);
  return kPcie * width * kLane[std::min(generation, kLane.size() - 1)];
}

int64_t memory_of(const Nvml& nvml, void* device) {
  Memory memory;
  return nvml.call("nvmlDeviceGetMemoryInfo", device, &memory) ? static_cast<int64_t>(memory.total)
                                                               : 0;
}

// Of a GPU in MIG mode the first instance, which is what ranks see of it; null: it is whole.
void* instance_of(const Nvml& nvml, void* gpu) {
  unsigned now = 0, later = 0;
  if (!nvml.call("nvmlDeviceGetMigMode", gpu, &now, &later) || now != 1) return nullptr;
  const unsigned count = nvml.number("nvmlDeviceGetMaxMigDeviceCount", gpu);
  for (unsigned i = 0; i < count; ++i) {
    void* instance = nullptr;
    if (nvml.call("nvmlDeviceGetMigDeviceHandleByIndex", gpu, i, &instance)) return instance;
  }
  return nullptr;
}

// An instance has multiprocessors of its own, and of the memory's rate what it has of the memory.
void take_share(const Nvml& nvml, void* instance, double multiprocessors, GpuFigures& figures) {
  const auto whole = static_cast<double>(figures.memory_bytes);
  figures.memory_bytes = memory_of(nvml, instance);
  if (whole > 0) figures.copy_bytes *= static_cast<double>(figures.memory_bytes) / whole;
  Attributes own;
  if (!nvml.call("nvmlDeviceGetAttributes_v2", instance, &own) || multiprocessors <= 0) return;
  figures.flops *= own.multiprocessors / multiprocessors;
  figures.half_flops *= own.multiprocessors / multiprocessors;
}

GpuFigures figures_of(const Nvml& nvml, void* gpu) {
  GpuFigures figures;
  figures.memory_bytes = memory_of(nvml, gpu);
  int major = 0, minor = 0;
  const bool known = nvml.call("nvmlDeviceGetCudaComputeCapability", gpu, &major, &minor);
  const int capability = known ? 10 * major + minor : 0;
  const double cores = nvml.number("nvmlDeviceGetNumGpuCores", gpu);
  const double clock = 1e6 * nvml.number("nvmlDeviceGetMaxClockInfo", gpu, kMultiprocessorClock);
  figures.flops = kProducts * 2 * cores * clock;
  const double multiprocessors = cores / cores_of_multiprocessor(capability);
  figures.half_flops = kProducts * multiprocessors * half_operations(capability) * clock;
  const double memory_clock = 1e6 * nvml.number("nvmlDeviceGetMaxClockInfo", gpu, kMemoryClock);
  figures.copy_bytes =
      2 * memory_clock * nvml.number("nvmlDeviceGetMemoryBusWidth", gpu) / 8;  // both edges
  figures.link_bytes = link_rate(nvml, gpu);
  if (void* instance = instance_of(nvml, gpu)) {
    take_share(nvml, instance, multiprocessors, figures);
  }
  return figures;
}

// The smaller of two that are known.
template <typename T>
void take_least(T& least, T other) {
  if (least == 0 || (other > 0 && other < least)) least = other;
}

}  // namespace

GpuFigures gpu_figures(std::span<const std::string> ids, const char* library) {
  const std::unique_ptr<void, Close> loaded(::dlopen(library, RTLD_NOW | RTLD_LOCAL));
  GpuFigures least;
  if (!loaded) return least;
  const Nvml nvml(loaded.get());
  if (!nvml.call("nvmlInit_v2")) return least;
  for (const std::string& id : ids) {
    void* gpu = nullptr;
    if (!nvml.call("nvmlDeviceGetHandleByUUID", id.c_str(), &gpu)) continue;
    const GpuFigures figures = figures_of(nvml, gpu);
    take_least(least.memory_bytes, figures.memory_bytes);
    take_least(least.flops, figures.flops);
    take_least(least.half_flops, figures.half_flops);
    take_least(least.copy_bytes, figures.copy_bytes);
    take_least(least.link_bytes, figures.link_bytes);
  }
  nvml.call("nvmlShutdown");
  return least;
}

void fill_gpu_figures(const GpuFigures& figures, proto::NodeInfo& node) {
  node.set_gpu_memory_bytes(figures.memory_bytes);
  node.set_gpu_flops(figures.flops);
  node.set_gpu_half_flops(figures.half_flops);
  node.set_gpu_copy_bytes_per_second(figures.copy_bytes);
  node.set_gpu_link_bytes_per_second(figures.link_bytes);
}

}  // namespace weft
