#include "kernels/ops/random.h"

#include <cmath>
#include <numbers>

namespace weft {
namespace {

uint64_t mix(uint64_t x) {  // the finalizer of SplitMix64 (Steele et al. 2014)
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

uint32_t low(uint64_t x) { return static_cast<uint32_t>(x); }
uint32_t high(uint64_t x) { return static_cast<uint32_t>(x >> 32); }

// (0, 1], 53 bits of two words.
double open_uniform(uint32_t a, uint32_t b) {
  const uint64_t bits = (uint64_t{a} << 32 | b) >> 11;
  return static_cast<double>(bits + 1) * 0x1p-53;
}

}  // namespace

RandomKey RandomKey::derive(uint64_t a, uint64_t b, uint64_t c) const {
  return {seed, mix(mix(mix(mix(stream) ^ a) ^ b) ^ c)};
}

std::array<uint32_t, 4> philox(RandomKey key, uint64_t counter) {
  std::array<uint32_t, 4> x = {low(counter), high(counter), low(key.stream), high(key.stream)};
  uint32_t k0 = low(key.seed), k1 = high(key.seed);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * x[0], p1 = uint64_t{0xCD9E8D57} * x[2];
    x = {high(p1) ^ x[1] ^ k0, low(p1), high(p0) ^ x[3] ^ k1, low(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return x;
}

float uniform_at(RandomKey key, uint64_t index) {
  return static_cast<float>(philox(key, index / 4)[index % 4] >> 8) * 0x1p-24F;
}

bool kept_at(RandomKey key, uint64_t index, int dropped) {
  const uint32_t word = philox(key, index / 8)[index % 8 / 2];
  return static_cast<int>(index % 2 == 0 ? word & 0xFFFF : word >> 16) >= dropped;
}

double normal_at(RandomKey key, uint64_t index) {
  const std::array<uint32_t, 4> words = philox(key, index);
  const double radius = std::sqrt(-2 * std::log(open_uniform(words[0], words[1])));
  return radius * std::cos(2 * std::numbers::pi * open_uniform(words[2], words[3]));
}

}  // namespace weft
