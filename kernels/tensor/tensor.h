// A tensor: a view (shape, strides, offset) of shared storage, and its place in autograd.
//
// A Tensor is a handle: copies share the storage and the autograd state. An empty handle (default
// constructed) is "no tensor", for example an absent bias.
//
// Thread safety: handles as shared_ptr; elements are the caller's business. Ownership: the last
// handle to a storage returns it to its allocator. Invariants: 1. strides are in elements and >=
// 0. 2. requires_grad only on floating tensors. 3. the gradient of a leaf has the leaf's shape and
// gradient_dtype(its dtype): sums of half types are kept in fp32.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/tensor/allocator.h"
#include "kernels/tensor/dtype.h"
#include "kernels/tensor/shape.h"

namespace weft {

struct TensorSpec {
  Shape shape;
  DType dtype = DType::kF32;
  bool operator==(const TensorSpec&) const = default;
};

class Tensor {
 public:
  Tensor() = default;
  // Uninitialized, contiguous.
  static Tensor empty(Allocator& allocator, Shape shape, DType dtype = DType::kF32);
  static Tensor zeros(Allocator& allocator, Shape shape, DType dtype = DType::kF32);
  static Tensor full(Allocator& allocator, Shape shape, double value, DType dtype = DType::kF32);
  template <typename T>
  static Tensor from(Allocator& allocator, Shape shape, std::span<const T> values) {
    Tensor tensor = empty(allocator, shape, DTypeOf<T>::value);
    WEFT_CHECK(static_cast<int64_t>(values.size()) == shape.elements(), "{} values", values.size());
    tensor.write(values.data());
    return tensor;
  }

  explicit operator bool() const { return impl_ != nullptr; }
  const Shape& shape() const;
  int64_t dim(int index) const { return shape()[index]; }
  std::span<const int64_t> strides() const;
  DType dtype() const;
  TensorSpec spec() const { return {shape(), dtype()}; }
  int64_t elements() const { return shape().elements(); }
  size_t bytes() const { return static_cast<size_t>(elements()) * size_of(dtype()); }
  bool contiguous() const;
  bool unique() const;  // the only handle to its storage
  Allocator& allocator() const;
  Device device() const { return allocator().device(); }

  void* raw() const;  // first element of this view; not for the host to follow on another device
  template <typename T>
  T* data() const {
    WEFT_CHECK(dtype() == DTypeOf<T>::value, "dtype is {}", dtype_name(dtype()));
    return static_cast<T*>(raw());
  }
  template <typename T>
  std::vector<T> to_vector() const;  // row-major copy on the host, any strides, from any device

  // Views outside autograd (no tape entry). The differentiable ones are in kernels/ops.
  Tensor view(Shape shape, std::span<const int64_t> strides, int64_t offset_elements) const;
  // The same bytes as elements of another dtype; one dim, contiguous, beginning and ending at whole
  // elements of it.
  Tensor reinterpreted(DType dtype) const;
  Tensor detach() const;          // same storage, no autograd state
  void fill(double value) const;  // all elements, contiguous
  // From now on every copy of this handle shows the elements of `other`, which has its shape and
  // may have another floating dtype; it keeps its autograd state. A gradient may be held only where
  // its dtype stays right.
  void rebind(const Tensor& other) const;
  uint64_t id() const;  // of the autograd identity; distinct for every op result

  // Autograd state.
  bool requires_grad() const;
  bool leaf() const;                   // requires a gradient and is no result of a recorded op
  Tensor& set_requires_grad(bool on);  // makes it a leaf
  void mark_result() const;            // the tape: requires a gradient, is no leaf
  Tensor grad() const;                 // empty handle before the first backward
  void set_grad(Tensor grad) const;    // an empty handle clears it

 private:
  void write(const void* values) const;  // all elements, contiguous, from the host
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace weft
