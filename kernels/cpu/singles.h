// fp32 numbers that a rank keeps for long: as they are, or in two halves of 16 bits, of which one
// is what a model in bf16 computes with anyway (Kalamkar et al. 2020, arXiv 2005.04680: split SGD):
//
//   value = the number rounded to bf16, to nearest, ties away from zero
//   low   = bits(number) - (bits(value) << 16), which lies in [-2^15, 2^15)
//
// so that bits(number) = (bits(value) << 16) + low, exactly, whatever the number: subnormal, or so
// large that its value is infinite. Ties are not rounded to even, as half.h does it: 2^16 + 1
// numbers have the same even value then, one more than 16 bits tell apart. Of a NaN sign and upper
// half are kept, made quiet; so its value is the one of half.h.
//
// Thread safety: as the tensors. Ownership: handles.
#pragma once

#include <type_traits>
#include <vector>

#include "kernels/tensor/tensor.h"
#include "kernels/tensor/thread_pool.h"
#include "kernels/tensor/transfer.h"

namespace weft {

struct Singles {
  Singles() = default;
  // fp32; or values of bf16, and their other halves, of the same shape. Contiguous. Values of a
  // half type alone are numbers that are rounded to it (of what is not trained).
  Singles(Tensor numbers_or_values, Tensor other_halves = {});

  Tensor numbers;  // fp32, or of a half type: the values
  // Empty where these are all there is. 16-bit integers, for which there is no dtype: BF16 in name.
  Tensor low;

  int64_t elements() const { return numbers.elements(); }
  std::vector<float> to_vector() const;  // row-major, on the host, from any device
  // All of them := values, of the host; or those of `from`, fp32, of the same shape and device.
  void set(const float* values) const;
  void set(ThreadPool& pool, const Tensor& from) const;
  // The same from write(numbers), which gives them all, on the host. Returns what write does.
  template <typename F>
  decltype(auto) set_on_host(F&& write) const {
    if (numbers.dtype() == DType::kF32) {
      return change_on_host<float>(numbers, std::forward<F>(write));
    }
    std::vector<float> values(static_cast<size_t>(elements()));
    if constexpr (std::is_void_v<decltype(write(values.data()))>) {
      write(values.data());
      set(values.data());
    } else {
      auto result = write(values.data());
      set(values.data());
      return result;
    }
  }
};

}  // namespace weft
