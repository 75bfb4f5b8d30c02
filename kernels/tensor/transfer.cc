#include "kernels/tensor/transfer.h"

#include <cstring>

#include "kernels/tensor/dispatch.h"
#include "kernels/tensor/stream.h"

namespace weft {
namespace {

Tensor contiguous_on_its_device(const Tensor& x) {
  if (x.contiguous()) return x;
  Tensor copy = Tensor::empty(x.allocator(), x.shape(), x.dtype());
  x.allocator().stream()->copy(x, copy);
  return copy;
}

}  // namespace

Tensor to_allocator(const Tensor& x, Allocator& target) {
  if (x.device() == target.device()) return x;
  Tensor copy = Tensor::empty(target, x.shape(), x.dtype());
  if (x.bytes() == 0) return copy;
  if (x.device().is_cpu()) {
    WEFT_CHECK(x.contiguous(), "a host tensor to upload is contiguous");
    target.stream()->upload(copy.raw(), x.raw(), x.bytes());
    return copy;
  }
  WEFT_CHECK(target.device().is_cpu(), "from {} to {}", x.device().to_string(),
             target.device().to_string());
  const Tensor whole = contiguous_on_its_device(x);
  whole.allocator().stream()->download(copy.raw(), whole.raw(), whole.bytes());
  return copy;
}

void upload(const Tensor& x, const void* values) {
  if (x.bytes() == 0) return;
  if (Stream* stream = x.allocator().stream()) {
    stream->upload(x.raw(), values, x.bytes());
  } else {
    std::memcpy(x.raw(), values, x.bytes());
  }
}

double read_scalar(const Tensor& x) {
  WEFT_CHECK(x.elements() == 1, "{} is no scalar", x.shape().to_string());
  return dispatch_all(x.dtype(), [&]<typename T>() {
    T value{};
    if (x.device().is_cpu()) {
      value = *x.data<T>();
    } else {
      x.allocator().stream()->download(&value, x.raw(), sizeof value);
    }
    return static_cast<double>(value);
  });
}

}  // namespace weft
