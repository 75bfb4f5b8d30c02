// Two GPUs, as NVML would tell of them: of the first's kind an A100 of 80 GB, but with NVLink; the
// second has less memory and fewer links.
#include <cstdio>
#include <cstring>

extern "C" {
int nvmlDeviceGetMemoryInfo(void* device, unsigned long long* memory) {
  memory[0] = *static_cast<char*>(device) == '0' ? 85'899'345'920 : 42'949'672'960;
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
  *active = link < (*static_cast<char*>(device) == '0' ? 12U : 4U) ? 1 : 0;
  return 0;
}
int nvmlDeviceGetNvLinkVersion(void*, unsigned, unsigned* version) {
  *version = 4;  // 3.0
  return 0;
}
int nvmlInit_v2() { return 0; }
int nvmlShutdown() { return 0; }
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 2;
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  static char devices[2];
  *device = &devices[index];
  devices[index] = static_cast<char>('0' + index);
  return 0;
}
int nvmlDeviceGetName(void* device, char* name, unsigned length) {
  std::snprintf(name, length, "Stand-in %c", *static_cast<char*>(device));
  return 0;
}
int nvmlDeviceGetUUID(void* device, char* uuid, unsigned length) {
  std::snprintf(uuid, length, "GPU-0000000%c-1111-2222-3333-444444444444",
                *static_cast<char*>(device));
  return 0;
}
int nvmlDeviceGetHandleByUUID(const char* uuid, void** device) {
  for (unsigned index = 0; index < 2; ++index) {
    char own[96];
    nvmlDeviceGetHandleByIndex_v2(index, device);
    nvmlDeviceGetUUID(*device, own, sizeof(own));
    if (std::strcmp(own, uuid) == 0) return 0;
  }
  return 6;  // not found
}
}
