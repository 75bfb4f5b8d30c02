#include "tests/testing/cuda_on_cpu/device_memory.h"

#include <cstring>

namespace weft::cuda_on_cpu {
namespace {

constexpr size_t kGuardWords = 2048;

// A quiet NaN of its own for each word of each array.
uint32_t guard_word(size_t array, size_t word) {
  const uint64_t mixed = (array + 1) * 0x9E3779B97F4A7C15 + word * 0xBF58476D1CE4E5B9;
  return 0x7FC00000U | (static_cast<uint32_t>(mixed >> 32) & 0x3FFFFF);
}

}  // namespace

void* DeviceMemory::place(const void* values, size_t count, size_t size, bool is_input) {
  auto array = std::make_unique<Array>();
  const size_t number = arrays_.size();
  array->length = count * size / sizeof(uint32_t);
  array->words.resize(array->length + 2 * kGuardWords);
  for (size_t i = 0; i < array->words.size(); ++i) array->words[i] = guard_word(number, i);
  uint32_t* elements = array->words.data() + kGuardWords;
  if (values != nullptr && count > 0) std::memcpy(elements, values, count * size);
  if (is_input) array->input.assign(elements, elements + array->length);
  arrays_.push_back(std::move(array));
  return elements;
}

std::string DeviceMemory::violation() const {
  for (size_t number = 0; number < arrays_.size(); ++number) {
    const Array& array = *arrays_[number];
    for (size_t i = 0; i < array.words.size(); ++i) {
      const bool inside = i >= kGuardWords && i < kGuardWords + array.length;
      if (inside && array.input.empty()) continue;
      const uint32_t expected = inside ? array.input[i - kGuardWords] : guard_word(number, i);
      if (array.words[i] == expected) continue;
      const auto offset = static_cast<int64_t>(i) - static_cast<int64_t>(kGuardWords);
      return "array " + std::to_string(number) + " was written " +
             (inside ? "though it is an input, at word " : "outside its bounds, at word ") +
             std::to_string(offset) + " of " + std::to_string(array.length);
    }
  }
  return "";
}

}  // namespace weft::cuda_on_cpu
