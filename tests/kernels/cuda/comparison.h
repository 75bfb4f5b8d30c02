// What the cases share: values, the CPU ops in float64, and the comparison with them.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/cuda/limits.h"
#include "tests/kernels/cuda/cases.h"
#include "tests/testing/cuda_on_cpu/device_memory.h"
#include "tests/testing/gradient_check.h"

namespace weft::cuda {

using cuda_on_cpu::DeviceMemory;
using testing::Bench;

inline std::vector<float> random_values(int64_t n, uint64_t seed, double scale = 1,
                                        double shift = 0) {
  std::vector<float> values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(shift + scale * normal_at({seed, 11}, i));
  }
  return values;
}

// The values that T can hold next to these, and as T.
template <typename T>
std::vector<float> rounded(std::vector<float> values) {
  for (float& value : values) value = static_cast<float>(T(value));
  return values;
}
template <typename T>
std::vector<T> as(const std::vector<float>& values) {
  std::vector<T> result;
  for (const float value : values) result.push_back(T(value));
  return result;
}
// One rounding to T beside an error of `fp32`.
template <typename T>
double near(double fp32) {
  if constexpr (std::is_same_v<T, bfloat16>) return fp32 + 0x1p-8;
  if constexpr (std::is_same_v<T, float16>) return fp32 + 0x1p-11;
  return fp32;
}
// The first that a check of each type has to say.
template <typename Check>
std::string of_types(const Check& check) {
  std::string finding = check.template operator()<float>();
  if (finding.empty()) finding = check.template operator()<bfloat16>();
  if (finding.empty()) finding = check.template operator()<float16>();
  return finding;
}

inline Tensor in_double(Bench& bench, Shape shape, const std::vector<float>& values) {
  const std::vector<double> wide(values.begin(), values.end());
  return Tensor::from<double>(*bench.allocator, shape, wide);
}

// Gradients of the op's result with `dy` at each input, in float64.
inline std::vector<std::vector<double>> gradients_of(Bench& bench, const testing::Function& op,
                                                     std::vector<Tensor> inputs, const Tensor& dy) {
  for (Tensor& input : inputs) {
    if (input.dtype() == DType::kF64) input.set_requires_grad(true);
  }
  Tape tape;
  Context recording = bench.context;
  recording.tape = &tape;
  const Tensor output = op(recording, inputs);
  tape.backward(recording, output, dy);
  std::vector<std::vector<double>> gradients;
  for (const Tensor& input : inputs) {
    if (input.dtype() == DType::kF64) gradients.push_back(input.grad().to_vector<double>());
  }
  return gradients;
}

// Says where |actual - expected| > tolerance (1 + |expected|), or nothing. NaN is close to NaN
// alone.
template <typename T>
std::string differs(const std::string& what, const T* actual, const std::vector<double>& expected,
                    double tolerance) {
  for (size_t i = 0; i < expected.size(); ++i) {
    const double got = static_cast<double>(actual[i]), want = expected[i];
    const bool same = got == want || (std::isnan(got) && std::isnan(want)) ||
                      std::abs(got - want) <= tolerance * (1 + std::abs(want));
    if (same) continue;
    return what + ": element " + std::to_string(i) + " of " + std::to_string(expected.size()) +
           " is " + std::to_string(got) + ", not " + std::to_string(want);
  }
  return "";
}

// The first that has something to say.
inline std::string first_of(std::initializer_list<std::string> findings) {
  for (const std::string& finding : findings) {
    if (!finding.empty()) return finding;
  }
  return "";
}

// Says what is wrong with the note of a number of `values`, or nothing.
inline std::string noted(const Note& note, ops::Numbers numbers, int64_t end,
                         const std::vector<int64_t>& values) {
  if (note.taken == 0) return "a number outside was not noted";
  const ops::OutOfRange& found = note.found;
  const bool one = std::find(values.begin(), values.end(), found.value) != values.end();
  if (one && found.numbers == numbers && found.end == end) return "";
  return "noted: " + std::to_string(found.value) + " beside " + std::to_string(found.end);
}

struct RowShape {
  int64_t rows, width;
  int64_t start = 0;  // elements of the input before its first: no aligned address
};
// Odd sizes, one warp to several, more rows than a grid takes at once, and nothing; vectors that
// threads keep, on their edges and beyond.
inline std::vector<RowShape> row_shapes() {
  return {{0, 4},     {1, 1},   {3, 5},    {2, 33},   {5, 257},  {2, 1025}, {8 * kBlocksMax + 3, 2},
          {5, 24, 1}, {9, 264}, {3, 1032}, {2, 2048}, {1, 16392}};
}

// An input whose first element lies behind `start` others.
template <typename T>
const T* input_behind(DeviceMemory& memory, const std::vector<float>& values, int64_t start) {
  std::vector<T> all(static_cast<size_t>(start), T(7.0F));
  for (const float value : values) all.push_back(T(value));
  return memory.input(all) + start;
}

}  // namespace weft::cuda
