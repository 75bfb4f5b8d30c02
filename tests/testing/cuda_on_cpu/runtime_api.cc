#include <cstring>

#include "tests/testing/cuda_on_cpu/include/cuda_runtime_api.h"

namespace cpu = weft::cuda_on_cpu;

namespace {

cudaError_t allocate(void** memory, size_t bytes, bool pinned) {
  *memory = nullptr;
  if (cpu::capture_forbids_calls()) return cudaErrorStreamCaptureUnsupported;
  if (bytes == 0) return cudaSuccess;
  if (!pinned && cpu::alive().bytes + bytes > kCudaOnCpuBytes) return cudaErrorMemoryAllocation;
  *memory = cpu::allocate(bytes, pinned);
  return cudaSuccess;
}

// Freeing waits for the device.
cudaError_t release(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  if (cpu::capture_forbids_calls()) return cudaErrorStreamCaptureUnsupported;
  cpu::run_stream(nullptr);
  cpu::release(memory);
  return cudaSuccess;
}

bool is_gpu(int device) { return device >= 0 && device < std::ssize(cpu::gpu_numbers()); }

bool is_pageable(const void* at) { return !cpu::is_pinned(at) && !cpu::is_device(at); }

}  // namespace

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureUnjoined:
      return "capturing stream has unjoined work";
    case cudaErrorStreamCaptureImplicit:
      return "operation would make the legacy stream depend on a capturing blocking stream";
  }
  return "unrecognized error code";
}
const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaSuccess ? "cudaSuccess" : cudaGetErrorString(error);
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaPeekAtLastError() { return cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = static_cast<int>(std::ssize(cpu::gpu_numbers()));
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDevice(int* device) {
  *device = cpu::chosen_gpu();
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return cpu::choose_gpu(device) ? cudaSuccess : cudaErrorInvalidDevice;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (!is_gpu(device)) return cudaErrorInvalidDevice;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = 4;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = 227 << 10;
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (!is_gpu(device)) return cudaErrorInvalidDevice;
  *properties = {};
  std::strcpy(properties->name, "fibers");
  const int number = cpu::gpu_numbers()[static_cast<size_t>(device)];
  for (int i = 0; i < 4; ++i) properties->uuid.bytes[i] = static_cast<char>(number >> (24 - 8 * i));
  properties->totalGlobalMem = kCudaOnCpuBytes;
  properties->major = 9;
  properties->multiProcessorCount = 4;
  properties->sharedMemPerBlockOptin = 227 << 10;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  if (cpu::capture_forbids_calls()) return cudaErrorStreamCaptureUnsupported;
  cpu::run_stream(nullptr);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = kCudaOnCpuBytes;
  *free = kCudaOnCpuBytes - cpu::alive().bytes;
  return cudaSuccess;
}

cudaError_t cudaMallocBytes(void** memory, size_t bytes) { return allocate(memory, bytes, false); }
cudaError_t cudaFree(void* memory) { return release(memory); }
cudaError_t cudaMallocHostBytes(void** memory, size_t bytes) {
  return allocate(memory, bytes, true);
}
cudaError_t cudaFreeHost(void* memory) { return release(memory); }
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (kind != cudaMemcpyDefault && bytes > 0 &&
      (cpu::is_device(to) != to_device || cpu::is_device(from) != from_device)) {
    return cudaErrorInvalidValue;
  }
  const auto copy = [to, from, bytes] { std::memcpy(to, from, bytes); };
  if (bytes == 0) return cudaSuccess;
  if (is_pageable(to) || is_pageable(from)) {
    if (cpu::capture_forbids_calls()) return cudaErrorStreamCaptureUnsupported;
    cpu::run_stream(stream);
    copy();
  } else {
    cpu::enqueue(stream, copy);
  }
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (cpu::capture_forbids_calls()) return cudaErrorStreamCaptureImplicit;
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t stream) {
  if (bytes > 0) cpu::enqueue(stream, [at, value, bytes] { std::memset(at, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemset(void* at, int value, size_t bytes) {
  if (cpu::capture_forbids_calls()) return cudaErrorStreamCaptureImplicit;
  return cudaMemsetAsync(at, value, bytes, nullptr);
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = cpu::create_stream();
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return cudaStreamCreate(stream);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  return cudaStreamCreate(stream);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  cpu::destroy_stream(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (cpu::spoil_capture(stream)) return cudaErrorStreamCaptureUnsupported;
  if (cpu::capture_forbids_calls()) return cudaErrorStreamCaptureUnsupported;
  cpu::run_stream(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (cpu::spoil_capture(stream)) return cudaErrorStreamCaptureUnsupported;
  return cpu::advance(stream) ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new CUevent_st;
  cpu::count_event(1);
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return cudaEventCreate(event);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  cpu::count_event(-1);
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  cpu::record(event, stream);
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  cpu::wait_for(stream, event);
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (cpu::capture_forbids_calls()) return cudaErrorStreamCaptureUnsupported;
  cpu::run_until_done(event);
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const std::lock_guard lock(cpu::device_mutex());
  return *event->done >= event->recorded ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* data) {
  cpu::enqueue(stream, [function, data] { function(data); });
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (stream == nullptr || stream->capture != nullptr) return cudaErrorStreamCaptureUnsupported;
  cpu::begin_capture(stream, mode == cudaStreamCaptureModeRelaxed  ? cpu::Forbids::kNobody
                             : mode == cudaStreamCaptureModeGlobal ? cpu::Forbids::kAllThreads
                                                                   : cpu::Forbids::kItsThread);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (stream->capture == nullptr || !stream->captures_first) return cudaErrorInvalidValue;
  std::vector<cpu::Node> nodes;
  const bool valid = stream->capture->valid;
  const bool joined = cpu::end_capture(stream, nodes);
  if (!valid) return cudaErrorStreamCaptureInvalidated;
  if (!joined) return cudaErrorStreamCaptureUnjoined;
  *graph = new CUgraph_st{std::move(nodes)};
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const bool active = stream != nullptr && stream->capture != nullptr;
  *status = active ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->nodes};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  cpu::enqueue(stream, [nodes = exec->nodes] { cpu::run_graph(nodes); });
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
