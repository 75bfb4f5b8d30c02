// Two GPUs, as NVML would tell of them: of the first's kind an A100 of 80 GB, but with NVLink; the
// second has less memory and fewer links. A file `gpus` beside this library says which there are
// instead, a line each: number, bytes, and 1 for MIG mode. Such a one is cut into two instances, of
// a quarter of it each, of which the first place is empty.
#include <dlfcn.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace {

struct Gpu {
  unsigned number = 0;
  unsigned long long bytes = 0;
  unsigned mig = 0;
  unsigned multiprocessors = 108;
};

std::vector<Gpu> found_gpus() {
  Dl_info self{};
  static char here = 0;
  (void)::dladdr(&here, &self);
  const std::string library = self.dli_fname == nullptr ? "" : self.dli_fname;
  std::ifstream file(library.substr(0, library.rfind('/') + 1) + "gpus");
  if (!file) return {{0, 85'899'345'920, 0}, {1, 42'949'672'960, 0}};
  std::vector<Gpu> gpus;
  for (Gpu gpu; file >> gpu.number >> gpu.bytes >> gpu.mig;) gpus.push_back(gpu);
  return gpus;
}

std::vector<Gpu>& gpus() {
  static std::vector<Gpu> found = found_gpus();
  return found;
}

const Gpu& gpu_of(void* device) { return *static_cast<Gpu*>(device); }

Gpu& instance() {
  static Gpu only;
  return only;
}

}  // namespace

extern "C" {
int nvmlDeviceGetMemoryInfo(void* device, unsigned long long* memory) {
  memory[0] = gpu_of(device).bytes;
  memory[1] = memory[2] = 0;
  return 0;
}
int nvmlDeviceGetCudaComputeCapability(void*, int* major, int* minor) {
  *major = 8;
  *minor = 0;
  return 0;
}
int nvmlDeviceGetNumGpuCores(void*, unsigned* cores) {
  *cores = 6912;
  return 0;
}
int nvmlDeviceGetMaxClockInfo(void*, unsigned kind, unsigned* clock) {
  *clock = kind == 2 ? 1593 : 1410;
  return 0;
}
int nvmlDeviceGetMemoryBusWidth(void*, unsigned* width) {
  *width = 5120;
  return 0;
}
int nvmlDeviceGetNvLinkState(void* device, unsigned link, unsigned* active) {
  *active = link < (gpu_of(device).number == 0 ? 12U : 4U) ? 1 : 0;
  return 0;
}
int nvmlDeviceGetNvLinkVersion(void*, unsigned, unsigned* version) {
  *version = 4;  // 3.0
  return 0;
}
int nvmlDeviceGetMigMode(void* device, unsigned* now, unsigned* later) {
  *now = *later = gpu_of(device).mig;
  return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(void*, unsigned* count) {
  *count = 7;
  return 0;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void* device, unsigned index, void** found) {
  if (index == 0 || index > 2) return 6;  // not found
  instance() = gpu_of(device);
  instance().bytes /= 4;
  instance().multiprocessors = 28;
  *found = &instance();
  return 0;
}
int nvmlDeviceGetAttributes_v2(void* device, unsigned* attributes) {
  attributes[0] = gpu_of(device).multiprocessors;
  return 0;
}
int nvmlInit_v2() {
  gpus() = found_gpus();
  return 0;
}
int nvmlShutdown() { return 0; }
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = static_cast<unsigned>(gpus().size());
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  *device = &gpus().at(index);
  return 0;
}
int nvmlDeviceGetName(void* device, char* name, unsigned length) {
  std::snprintf(name, length, "Stand-in %u", gpu_of(device).number);
  return 0;
}
int nvmlDeviceGetUUID(void* device, char* uuid, unsigned length) {
  std::snprintf(uuid, length, "GPU-%08x-0000-0000-0000-000000000000", gpu_of(device).number);
  return 0;
}
int nvmlDeviceGetHandleByUUID(const char* wanted, void** device) {
  for (Gpu& gpu : gpus()) {
    char uuid[96];
    nvmlDeviceGetUUID(&gpu, uuid, sizeof(uuid));
    *device = &gpu;
    if (std::string(wanted) == uuid) return 0;
  }
  return 6;  // not found
}
}
