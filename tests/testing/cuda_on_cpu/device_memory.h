// Arrays for kernels under test, each between two guard zones. Guards and unwritten outputs hold
// NaNs (for integers: huge values) that differ from word to word and from array to array, so that
// what is read from outside shows in the results and what is written outside, a copied guard
// included, shows in violation().
//
// Thread safety: none. Ownership: arrays live as long as this. Invariants: 1. inputs must stand
// unchanged.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace weft::cuda_on_cpu {

class DeviceMemory {
 public:
  template <typename T>
  const T* input(const std::vector<T>& values) {
    return static_cast<const T*>(place(values.data(), values.size(), sizeof(T), true));
  }
  template <typename T>
  T* in_out(const std::vector<T>& values) {
    return static_cast<T*>(place(values.data(), values.size(), sizeof(T), false));
  }
  template <typename T>
  T* output(int64_t count) {
    return static_cast<T*>(place(nullptr, static_cast<size_t>(count), sizeof(T), false));
  }
  // Empty, or the first byte that was written where nothing may be.
  std::string violation() const;

 private:
  struct Array {
    std::vector<uint32_t> words;      // guard, elements, guard
    std::vector<uint32_t> untouched;  // what they were before any kernel
    size_t bytes = 0;                 // of the elements
    bool is_input = false;
  };
  void* place(const void* values, size_t count, size_t size, bool is_input);
  std::vector<std::unique_ptr<Array>> arrays_;
};

}  // namespace weft::cuda_on_cpu
