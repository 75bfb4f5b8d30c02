#include "kernels/tensor/strided.h"

#include "kernels/tensor/dispatch.h"
#include "kernels/tensor/stream.h"

namespace weft {
namespace {

template <typename T, typename F>
void for_pairs(ThreadPool& pool, const Tensor& from, const Tensor& to, F&& f) {
  const T* source = from.data<T>();
  T* target = to.data<T>();
  const StridedLoop<2> loop(from.shape(), {from.strides(), to.strides()});
  const int64_t s0 = loop.inner_stride(0), s1 = loop.inner_stride(1);
  loop.run(pool, [&](int64_t length, const std::array<int64_t, 2>& at, int64_t) {
    f(source + at[0], s0, target + at[1], s1, length);
  });
}

void check_pair(const Tensor& from, const Tensor& to) {
  WEFT_CHECK(from.spec() == to.spec() && from.device() == to.device(), "{} {} {} into {} {} {}",
             from.device().to_string(), dtype_name(from.dtype()), from.shape().to_string(),
             to.device().to_string(), dtype_name(to.dtype()), to.shape().to_string());
}

}  // namespace

void copy_into(ThreadPool& pool, const Tensor& from, const Tensor& to) {
  check_pair(from, to);
  if (Stream* stream = to.allocator().stream()) return stream->copy(from, to);
  dispatch_all(from.dtype(), [&]<typename T>() {
    for_pairs<T>(pool, from, to, [](const T* a, int64_t sa, T* b, int64_t sb, int64_t length) {
      if (sa == 1 && sb == 1) {
        std::copy_n(a, length, b);
      } else {
        for (int64_t i = 0; i < length; ++i) b[i * sb] = a[i * sa];
      }
    });
  });
}

void add_into(ThreadPool& pool, const Tensor& from, const Tensor& to) {
  check_pair(from, to);
  if (Stream* stream = to.allocator().stream()) return stream->add(from, to);
  dispatch_all(from.dtype(), [&]<typename T>() {
    for_pairs<T>(pool, from, to, [](const T* a, int64_t sa, T* b, int64_t sb, int64_t length) {
      if (sa == 1 && sb == 1) {
        for (int64_t i = 0; i < length; ++i) b[i] = static_cast<T>(b[i] + a[i]);
      } else {
        for (int64_t i = 0; i < length; ++i) b[i * sb] = static_cast<T>(b[i * sb] + a[i * sa]);
      }
    });
  });
}

Tensor clone(ThreadPool& pool, const Tensor& x) {
  Tensor copy = Tensor::empty(x.allocator(), x.shape(), x.dtype());
  copy_into(pool, x, copy);
  return copy;
}

Tensor as_contiguous(ThreadPool& pool, const Tensor& x) {
  return x.contiguous() ? x : clone(pool, x);
}

}  // namespace weft
