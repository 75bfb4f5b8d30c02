// Counter-based random numbers (Philox4x32-10, Salmon et al. 2011): the value at a global index is
// a pure function of (seed, stream, index), so that shards of a tensor draw what the whole would.
#pragma once

#include <array>
#include <cstdint>

namespace weft {

struct RandomKey {
  uint64_t seed = 0;
  uint64_t stream = 0;  // a distinct number for each use: derive() makes one
  RandomKey derive(uint64_t a, uint64_t b = 0, uint64_t c = 0) const;
};

std::array<uint32_t, 4> philox(RandomKey key, uint64_t counter);

// Uniform in [0, 1) with 24 bits, for global element index `index`.
float uniform_at(RandomKey key, uint64_t index);
// Standard normal for global element index `index` (Box-Muller over two uniforms of that index).
double normal_at(RandomKey key, uint64_t index);

}  // namespace weft
