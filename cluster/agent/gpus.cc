#include "cluster/agent/gpus.h"

#include <dlfcn.h>

#include <array>
#include <memory>

namespace weft {
namespace {

// The part of nvml.h that is asked for (NVML API reference, release 13).
using Init = int (*)();
using Count = int (*)(unsigned*);
using Handle = int (*)(unsigned, void**);
using Name = int (*)(void*, char*, unsigned);
constexpr int kSuccess = 0;

struct Close {
  void operator()(void* library) const { ::dlclose(library); }
};

template <typename F>
F find(void* library, const char* name) {
  return reinterpret_cast<F>(::dlsym(library, name));
}

}  // namespace

std::vector<std::string> gpu_names(const char* library) {
  const std::unique_ptr<void, Close> nvml(::dlopen(library, RTLD_NOW | RTLD_LOCAL));
  if (!nvml) return {};
  const auto init = find<Init>(nvml.get(), "nvmlInit_v2");
  const auto shutdown = find<Init>(nvml.get(), "nvmlShutdown");
  const auto count = find<Count>(nvml.get(), "nvmlDeviceGetCount_v2");
  const auto handle = find<Handle>(nvml.get(), "nvmlDeviceGetHandleByIndex_v2");
  const auto name = find<Name>(nvml.get(), "nvmlDeviceGetName");
  if (!init || !shutdown || !count || !handle || !name || init() != kSuccess) return {};
  std::vector<std::string> names;
  unsigned gpus = 0;
  if (count(&gpus) != kSuccess) gpus = 0;
  for (unsigned i = 0; i < gpus; ++i) {
    void* gpu = nullptr;
    std::array<char, 96> text{};
    const bool known =
        handle(i, &gpu) == kSuccess && name(gpu, text.data(), text.size()) == kSuccess;
    names.emplace_back(known ? text.data() : "GPU " + std::to_string(i));
  }
  shutdown();
  return names;
}

}  // namespace weft
