#include "kernels/cpu/convert.h"

#include <type_traits>

#include "kernels/cpu/convert_levels.h"
#include "kernels/tensor/dispatch.h"
#include "kernels/tensor/stream.h"
#include "kernels/tensor/strided.h"

namespace weft::cpu {
namespace {

constexpr int64_t kGrain = 16384;

template <typename From, typename To>
constexpr bool kWidens = std::is_same_v<To, float> &&
                         (std::is_same_v<From, bfloat16> || std::is_same_v<From, float16>);

template <typename From, typename To>
void convert_row(const From* from, To* to, int64_t n) {
  if constexpr (kWidens<From, To>) {
    widen(from, to, n);
  } else if constexpr (kWidens<To, From>) {
    round(from, to, n);
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<To>(from[i]);
  }
}

}  // namespace

const ConvertKernels& convert_at(Level level) {
  switch (level) {
    case Level::kAmx:
    case Level::kBf16:
      return convert_avx512bf16;
    case Level::kV4:
      return convert_v4;
    case Level::kV3:
      return convert_v3;
    case Level::kV2:
      break;
  }
  return convert_v2;
}

const ConvertKernels& convert() {
  static const ConvertKernels& found = convert_at(level());
  return found;
}

Tensor converted(ThreadPool& pool, const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  if (Stream* stream = x.allocator().stream()) {
    Tensor there = Tensor::empty(x.allocator(), x.shape(), dtype);
    stream->copy(x, there);
    return there;
  }
  const Tensor whole = as_contiguous(pool, x);
  const Tensor y = Tensor::empty(x.allocator(), x.shape(), dtype);
  dispatch_all(x.dtype(), [&]<typename From>() {
    dispatch_all(dtype, [&]<typename To>() {
      const From* from = whole.data<From>();
      To* to = y.data<To>();
      pool.parallel_for(x.elements(), kGrain, [&](int64_t begin, int64_t end) {
        convert_row(from + begin, to + begin, end - begin);
      });
    });
  });
  return y;
}

void add_converted(ThreadPool& pool, const Tensor& from, const Tensor& to) {
  if (Stream* stream = to.allocator().stream()) return stream->add(from, to);
  const bool bf16 = from.dtype() == DType::kBF16 && from.contiguous() && to.contiguous() &&
                    from.shape() == to.shape();
  if (bf16 && (to.dtype() == DType::kBF16 || to.dtype() == DType::kF32)) {
    const bfloat16* x = from.data<bfloat16>();
    pool.parallel_for(from.elements(), kGrain, [&](int64_t begin, int64_t end) {
      if (to.dtype() == DType::kBF16) {
        convert().add_bf16(x + begin, to.data<bfloat16>() + begin, end - begin);
      } else {
        convert().add_bf16_f32(x + begin, to.data<float>() + begin, end - begin);
      }
    });
    return;
  }
  if (from.dtype() == to.dtype()) return add_into(pool, from, to);
  if (is_half(to.dtype())) {
    const Tensor sum = clone(pool, converted(pool, to, from.dtype()));
    add_into(pool, from, sum);
    return copy_into(pool, converted(pool, sum, to.dtype()), to);
  }
  add_into(pool, converted(pool, from, to.dtype()), to);
}

}  // namespace weft::cpu
