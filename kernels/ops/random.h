// Counter-based random numbers (Philox4x32-10, Salmon et al. 2011): the value at a global index is
// a pure function of (seed, stream, index), so that shards of a tensor draw what the whole would.
#pragma once

#include <algorithm>
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
// How dropout decides: an element has 16 bits of its own, and `dropped` of their 65536 values drop
// it. That is the number nearest to 65536 rate, but at least one of a rate above 0 and never all.
// What stays is multiplied by one through the share that stays, so that the mean is kept exactly.
// FlashAttention-2's kernels decide by 8 bits (csrc/flash_attn/src/dropout.h).
struct DropRule {
  explicit DropRule(double rate)  // in [0, 1)
      : dropped(rate > 0 ? std::clamp(static_cast<int>(rate * 65536 + 0.5), 1, 65535) : 0),
        factor(65536.0 / (65536 - dropped)) {}
  int dropped;
  double factor;
};
// Whether the global element `index` stays. Eight in a row are of one counter, two of a word, the
// lower half first.
bool kept_at(RandomKey key, uint64_t index, int dropped);

// Standard normal for global element index `index` (Box-Muller over two uniforms of that index).
double normal_at(RandomKey key, uint64_t index);

}  // namespace weft
