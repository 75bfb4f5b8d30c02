// Philox4x32-10 (Salmon et al. 2011) on the device: the words of philox() in kernels/ops/random.h.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/device_key.h"

namespace weft::cuda {

struct PhiloxWords {
  uint32_t word[4];
};

__device__ inline PhiloxWords philox_words(RandomKey key, uint64_t counter) {
  uint32_t a = static_cast<uint32_t>(counter), b = static_cast<uint32_t>(counter >> 32);
  uint32_t c = static_cast<uint32_t>(key.stream), d = static_cast<uint32_t>(key.stream >> 32);
  uint32_t k0 = static_cast<uint32_t>(key.seed), k1 = static_cast<uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * a, p1 = uint64_t{0xCD9E8D57} * c;
    a = static_cast<uint32_t>(p1 >> 32) ^ b ^ k0;
    b = static_cast<uint32_t>(p1);
    c = static_cast<uint32_t>(p0 >> 32) ^ d ^ k1;
    d = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return {{a, b, c, d}};
}

__device__ inline PhiloxWords words_of(const DeviceKey& key, uint64_t counter) {
  const RandomKey now{key.seed == nullptr ? key.key.seed : *key.seed, key.key.stream};
  return philox_words(now, counter);
}
// uniform_at(key, index).
__device__ inline float uniform_of(const DeviceKey& key, uint64_t index) {
  return static_cast<float>((words_of)(key, index / 4).word[index % 4] >> 8) * 0x1p-24F;
}
// kept_at(key, index, dropped), given the words of the counter index / 8. They are chosen by
// comparisons: a place among them that is not known would put them into memory.
__device__ inline bool kept_in(const PhiloxWords& words, uint64_t index, int dropped) {
  const bool late = index % 8 >= 4;
  const uint32_t first = late ? words.word[2] : words.word[0];
  const uint32_t second = late ? words.word[3] : words.word[1];
  const uint32_t word = index % 4 >= 2 ? second : first;
  return static_cast<int>(word >> (index % 2 * 16) & 0xFFFF) >= dropped;
}

}  // namespace weft::cuda
