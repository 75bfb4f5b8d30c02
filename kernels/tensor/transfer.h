// Between devices. Reading from a GPU waits for its stream, so it is done on purpose and rarely:
// the loss, the gradient norm, a checkpoint.
//
// Thread safety: as the streams involved.
#pragma once

#include <type_traits>
#include <vector>

#include "kernels/tensor/tensor.h"

namespace weft {

// x itself where it lies on target's device, else a contiguous copy there, complete on return where
// the target is the host. Not recorded.
Tensor to_allocator(const Tensor& x, Allocator& target);

// All elements of x, which is contiguous, from the host's `values`.
void upload(const Tensor& x, const void* values);

// The only element of a tensor of any dtype.
double read_scalar(const Tensor& x);

// read(data) with the elements of x, which is contiguous, on the host: in place on the CPU, else a
// copy. Returns what read does.
template <typename T, typename F>
decltype(auto) on_host(const Tensor& x, F&& read) {
  WEFT_CHECK(x.contiguous(), "{} is not contiguous", x.shape().to_string());
  if (x.device().is_cpu()) return read(static_cast<const T*>(x.data<T>()));
  const std::vector<T> copy = x.to_vector<T>();
  return read(copy.data());
}

// write(data) changes elements of x, which is contiguous, on the host: in place on the CPU, else in
// a copy that is taken back. Returns what write does.
template <typename T, typename F>
decltype(auto) change_on_host(const Tensor& x, F&& write) {
  WEFT_CHECK(x.contiguous(), "{} is not contiguous", x.shape().to_string());
  if (x.device().is_cpu()) return write(x.data<T>());
  std::vector<T> copy = x.to_vector<T>();
  if constexpr (std::is_void_v<decltype(write(copy.data()))>) {
    write(copy.data());
    upload(x, copy.data());
  } else {
    auto result = write(copy.data());
    upload(x, copy.data());
    return result;
  }
}

}  // namespace weft
