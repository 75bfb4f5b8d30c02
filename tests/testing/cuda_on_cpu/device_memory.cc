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
  array->bytes = count * size;
  const size_t length = (array->bytes + sizeof(uint32_t) - 1) / sizeof(uint32_t);
  array->words.resize(length + 2 * kGuardWords);
  for (size_t i = 0; i < array->words.size(); ++i) array->words[i] = guard_word(arrays_.size(), i);
  uint32_t* elements = array->words.data() + kGuardWords;
  array->untouched = array->words;
  if (values != nullptr && count > 0) {
    std::memcpy(elements, values, array->bytes);
    std::memcpy(array->untouched.data() + kGuardWords, values, array->bytes);
  }
  array->is_input = is_input;
  arrays_.push_back(std::move(array));
  return elements;
}

std::string DeviceMemory::violation() const {
  for (size_t number = 0; number < arrays_.size(); ++number) {
    const Array& array = *arrays_[number];
    const auto* now = reinterpret_cast<const unsigned char*>(array.words.data());
    const auto* before = reinterpret_cast<const unsigned char*>(array.untouched.data());
    const size_t first = kGuardWords * sizeof(uint32_t), all = array.words.size() * 4;
    const auto same = [&](size_t from, size_t to) {
      return std::memcmp(now + from, before + from, to - from) == 0;
    };
    if (array.is_input ? same(0, all) : same(0, first) && same(first + array.bytes, all)) continue;
    for (size_t i = 0; i < all; ++i) {
      const bool inside = i >= first && i < first + array.bytes;
      if ((inside && !array.is_input) || now[i] == before[i]) continue;
      const auto offset = static_cast<int64_t>(i) - static_cast<int64_t>(first);
      return "array " + std::to_string(number) + " was written " +
             (inside ? "though it is an input, at byte " : "outside its bounds, at byte ") +
             std::to_string(offset) + " of " + std::to_string(array.bytes);
    }
  }
  return "";
}

}  // namespace weft::cuda_on_cpu
