// Strides of more than 2^32 elements, in address space of which only what is touched takes memory.
#include <sys/mman.h>

#include <array>

#include "tests/kernels/cuda/comparison.h"

namespace weft::cuda {
namespace {

// Cut to 32 bits it is 17: what forgets the rest reads zeros, or writes where nothing may be.
constexpr int64_t kFar = (int64_t{1} << 32) + 17;
constexpr int64_t kRows = 3, kWidth = 5;

template <typename T>
class FarRows {
 public:
  explicit FarRows(const std::vector<float>& values)
      : array_(static_cast<T*>(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
    WEFT_CHECK(array_ != MAP_FAILED, "{} bytes of address space", kBytes);
    for (size_t i = 0; i < values.size(); ++i) at(static_cast<int64_t>(i)) = T(values[i]);
  }
  ~FarRows() { ::munmap(array_, kBytes); }
  FarRows(const FarRows&) = delete;
  FarRows& operator=(const FarRows&) = delete;

  T* data() const { return array_; }
  T& at(int64_t index) const { return array_[index / kWidth * kFar + index % kWidth]; }
  std::vector<T> values() const {
    std::vector<T> all;
    for (int64_t i = 0; i < kRows * kWidth; ++i) all.push_back(at(i));
    return all;
  }

 private:
  static constexpr size_t kBytes = ((kRows - 1) * kFar + kWidth) * sizeof(T);
  T* const array_;
};

template <typename T>
std::string check_far_of(const TypedKernels<T>& kernels) {
  constexpr std::array<int64_t, 2> kExtents{kRows, kWidth}, kApart{kFar, 1}, kTight{kWidth, 1};
  const std::vector<float> values = rounded<T>(random_values(kRows * kWidth, 63));
  const std::vector<double> expected(values.begin(), values.end());
  std::vector<double> twice;
  for (const double value : expected) twice.push_back(2 * value);
  const FarRows<T> from(values), to(std::vector<float>(values.size()));
  DeviceMemory memory;
  T *gathered = memory.output<T>(kRows * kWidth), *sums = memory.output<T>(kRows * kWidth);
  Walk<2> in, out;
  Walk<3> both;
  if (!make_walk<2>(kExtents, {kApart, kTight}, in) ||
      !make_walk<2>(kExtents, {kTight, kApart}, out) ||
      !make_walk<3>(kExtents, {kApart, kTight, kTight}, both)) {
    return "no walk";
  }
  kernels.copy(in, from.data(), gathered, nullptr);
  kernels.copy(out, memory.input(as<T>(values)), to.data(), nullptr);
  kernels.binary(Binary::kAdd, both, from.data(), memory.input(as<T>(values)), sums, nullptr);
  return first_of({differs("gathered", gathered, expected, 0),
                   differs("spread", to.values().data(), expected, 0),
                   differs("added", sums, twice, 0), memory.violation()});
}

}  // namespace

std::string check_far(const KernelSet& set) {
  return of_types([&]<typename T>() { return check_far_of(set.typed<T>()); });
}

}  // namespace weft::cuda
