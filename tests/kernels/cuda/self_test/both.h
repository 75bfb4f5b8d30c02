// An array on the host and its copy on the device; internal to the self-test.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "kernels/cuda/launch.h"

namespace weft::cuda {

inline void expect(cudaError_t error) {
  if (error != cudaSuccess) throw_cuda_error(error, "the self-test");
}

template <typename T>
class Both {
 public:
  explicit Both(size_t count) : host(count) { expect(cudaMalloc(&device_, count * sizeof(T))); }
  Both(const Both&) = delete;
  Both& operator=(const Both&) = delete;
  ~Both() { cudaFree(device_); }
  T* sent() {
    expect(cudaMemcpy(device_, host.data(), bytes(), cudaMemcpyHostToDevice));
    return device_;
  }
  void fetch() {
    expect(cudaDeviceSynchronize());
    expect(cudaMemcpy(host.data(), device_, bytes(), cudaMemcpyDeviceToHost));
  }
  std::vector<T> host;

 private:
  size_t bytes() const { return host.size() * sizeof(T); }
  T* device_ = nullptr;
};

inline std::string differs_at(size_t index, double got, double want) {
  char text[96];  // floats by all their digits
  std::snprintf(text, sizeof text, "element %zu is %.9g, not %.9g", index, got, want);
  return text;
}

}  // namespace weft::cuda
