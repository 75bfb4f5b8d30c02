#include "kernels/cpu/singles.h"

#include <utility>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/update.h"
#include "kernels/tensor/strided.h"

namespace weft {
namespace {

// go(T()) with the half type that the dtype is.
template <typename F>
void of_half(DType dtype, F&& go) {
  if (dtype == DType::kBF16) return go(bfloat16());
  go(float16());
}

}  // namespace

Singles::Singles(Tensor numbers_or_values, Tensor other_halves)
    : numbers(std::move(numbers_or_values)), low(std::move(other_halves)) {
  WEFT_CHECK(!low || numbers.dtype() == DType::kBF16, "numbers of {}", dtype_name(numbers.dtype()));
  WEFT_CHECK(!low || low.spec() == numbers.spec(), "halves of {} and {}",
             numbers.shape().to_string(), low.shape().to_string());
}

std::vector<float> Singles::to_vector() const {
  if (numbers.dtype() == DType::kF32) return numbers.to_vector<float>();
  std::vector<float> values(static_cast<size_t>(elements()));
  if (!low) {
    of_half(numbers.dtype(), [&]<typename T>(T) {
      on_host<T>(numbers, [&](const T* from) { cpu::widen(from, values.data(), elements()); });
    });
    return values;
  }
  on_host<bfloat16>(numbers, [&](const bfloat16* upper) {
    on_host<bfloat16>(low, [&](const bfloat16* lower) {
      cpu::update().join(upper, lower, values.data(), elements());
    });
  });
  return values;
}

void Singles::set(const float* values) const {
  if (numbers.dtype() == DType::kF32) return upload(numbers, values);
  if (!low) {
    return of_half(numbers.dtype(), [&]<typename T>(T) {
      change_on_host<T>(numbers, [&](T* to) { cpu::round(values, to, elements()); });
    });
  }
  change_on_host<bfloat16>(numbers, [&](bfloat16* upper) {
    change_on_host<bfloat16>(
        low, [&](bfloat16* lower) { cpu::update().split(values, upper, lower, elements()); });
  });
}

void Singles::set(ThreadPool& pool, const Tensor& from) const {
  if (!low) return copy_into(pool, cpu::converted(pool, from, numbers.dtype()), numbers);
  on_host<float>(as_contiguous(pool, from), [&](const float* values) { set(values); });
}

}  // namespace weft
