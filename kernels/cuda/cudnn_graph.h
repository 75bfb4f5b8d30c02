// A graph of cuDNN's operations, and the plan that the library makes of it: the names, types and
// attributes are those of its graph API (cuDNN Developer Guide, release 9).
//
// Tensors have four extents, [row, head, query, key] or like it, and are named by numbers from 1 on
// in the order in which they are made. What a graph computes between its inputs and outputs lives
// on the chip: a `wire` is never in memory.
//
// Thread safety: one thread at a time. Ownership: a graph owns its descriptors. What the library
// refuses is thrown as StatusError(kUnavailable).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "kernels/cuda/cudnn_library.h"

namespace weft::cuda {

using Extents4 = std::array<int64_t, 4>;

// A descriptor of the library.
class CudnnDescriptor {
 public:
  CudnnDescriptor(const Cudnn& library, cudnnBackendDescriptorType_t type);
  ~CudnnDescriptor();
  CudnnDescriptor(CudnnDescriptor&& other) noexcept
      : library_(other.library_), raw_(std::exchange(other.raw_, nullptr)) {}
  CudnnDescriptor(const CudnnDescriptor&) = delete;
  CudnnDescriptor& operator=(const CudnnDescriptor&) = delete;
  CudnnDescriptor& operator=(CudnnDescriptor&&) = delete;

  cudnnBackendDescriptor_t raw() const { return raw_; }
  template <typename T>
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
           std::span<const T> values) {
    set_raw(name, type, static_cast<int64_t>(values.size()), values.data());
  }
  template <typename T>
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const T& value) {
    set_raw(name, type, 1, &value);
  }
  void set(cudnnBackendAttributeName_t name, const CudnnDescriptor& value) {
    set_raw(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value.raw_);
  }
  // Into at most `room` elements; how many there are.
  int64_t get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t room,
              void* values) const;
  void finalize();

 private:
  void set_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
               const void* values);
  const Cudnn& library_;
  cudnnBackendDescriptor_t raw_ = nullptr;
};

class CudnnGraph {
 public:
  explicit CudnnGraph(const Cudnn& library) : library_(library) {}

  // In memory, at multiples of 16 bytes.
  int64_t tensor(cudnnDataType_t type, const Extents4& extents, const Extents4& steps);
  int64_t wire(cudnnDataType_t type, const Extents4& extents);  // packed
  int64_t wire(cudnnDataType_t type, const Extents4& extents, const Extents4& steps);
  int64_t number(float value);

  // c := a b of the last two dims. Where a has more heads than b, consecutive ones share one of b.
  void matmul(int64_t a, int64_t b, int64_t c);
  void pointwise(cudnnPointwiseMode_t mode, int64_t x, int64_t b, int64_t y,
                 cudnnDataType_t math = CUDNN_DATA_FLOAT);
  void pointwise(cudnnPointwiseMode_t mode, int64_t x, int64_t y);
  // y := where each element of x stands in the dim `axis`.
  void index(int64_t x, int64_t axis, int64_t y);
  // y := x where `mask`, else b.
  void select(int64_t x, int64_t b, int64_t mask, int64_t y);
  // Over the dims in which y has less extent; of the heads, over consecutive ones.
  void reduce(cudnnReduceTensorOp_t op, int64_t x, int64_t y);
  // y is x, read by other extents and steps.
  void reshape(int64_t x, int64_t y);

  // Chooses the first engine that the library's heuristics name and that can run it; `repeatable`:
  // that gives the same bits every time. False: there is none.
  bool plan(cudnnHandle_t handle, bool repeatable);
  // The two below once it is planned.
  int64_t workspace_bytes() const;
  // Queues it. Each pair: a tensor in memory, and where it lies.
  void run(cudnnHandle_t handle, std::span<const std::pair<int64_t, void*>> places,
           void* workspace) const;

 private:
  CudnnDescriptor descriptor(cudnnBackendDescriptorType_t type) { return {library_, type}; }
  int64_t add_tensor(cudnnDataType_t type, const Extents4& extents, const Extents4& steps,
                     bool is_virtual, bool by_value);
  const CudnnDescriptor& at(int64_t tensor) const {
    return tensors_[static_cast<size_t>(tensor - 1)];
  }
  CudnnDescriptor pointwise_of(cudnnPointwiseMode_t mode, cudnnDataType_t math,
                               std::optional<int64_t> axis);
  CudnnDescriptor pointwise_operation(const CudnnDescriptor& pointwise, int64_t x, int64_t y);
  void finish(CudnnDescriptor operation);
  bool is_repeatable(const CudnnDescriptor& configuration) const;

  const Cudnn& library_;
  std::vector<CudnnDescriptor> tensors_;
  std::vector<CudnnDescriptor> details_;  // what operations refer to
  std::vector<CudnnDescriptor> operations_;
  std::vector<CudnnDescriptor> planned_;  // the graph, the engines, and last the plan
  std::vector<std::pair<int64_t, float>> numbers_;
};

}  // namespace weft::cuda
