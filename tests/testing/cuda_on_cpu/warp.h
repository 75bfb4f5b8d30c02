// Shuffles, votes and matches of a warp, as meetings of its lanes.
//
// Thread safety: none; called by the running thread of the machine.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/testing/cuda_on_cpu/machine.h"

namespace weft::cuda_on_cpu {

// The bits of lane `source` of the mask.
uint64_t warp_exchange(unsigned mask, uint64_t bits, int source, const Where& where);
// The lanes of the mask for which `vote` is true.
unsigned warp_ballot(unsigned mask, bool vote, const Where& where);
// The lanes of the mask that have the same bits as the caller.
unsigned warp_match(unsigned mask, uint64_t bits, const Where& where);

template <typename T>
uint64_t bits_of(T value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <typename T>
T shuffle(unsigned mask, T value, int source, const Where& where) {
  const uint64_t bits = warp_exchange(mask, bits_of(value), source, where);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace weft::cuda_on_cpu
