#include "kernels/cpu/singles.h"

#include <utility>

#include "kernels/cpu/update.h"
#include "kernels/tensor/strided.h"

namespace weft {

Singles::Singles(Tensor numbers_or_values, Tensor other_halves)
    : numbers(std::move(numbers_or_values)), low(std::move(other_halves)) {
  WEFT_CHECK(numbers.dtype() == (low ? DType::kBF16 : DType::kF32), "numbers of {}",
             dtype_name(numbers.dtype()));
  WEFT_CHECK(!low || low.spec() == numbers.spec(), "halves of {} and {}",
             numbers.shape().to_string(), low.shape().to_string());
}

std::vector<float> Singles::to_vector() const {
  if (!low) return numbers.to_vector<float>();
  std::vector<float> values(static_cast<size_t>(elements()));
  on_host<bfloat16>(numbers, [&](const bfloat16* upper) {
    on_host<bfloat16>(low, [&](const bfloat16* lower) {
      cpu::update().join(upper, lower, values.data(), elements());
    });
  });
  return values;
}

void Singles::set(const float* values) const {
  if (!low) return upload(numbers, values);
  change_on_host<bfloat16>(numbers, [&](bfloat16* upper) {
    change_on_host<bfloat16>(
        low, [&](bfloat16* lower) { cpu::update().split(values, upper, lower, elements()); });
  });
}

void Singles::set(ThreadPool& pool, const Tensor& from) const {
  if (!low) return copy_into(pool, from, numbers);
  on_host<float>(as_contiguous(pool, from), [&](const float* values) { set(values); });
}

}  // namespace weft
