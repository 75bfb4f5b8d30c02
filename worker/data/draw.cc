#include "worker/data/draw.h"

namespace weft {

uint64_t below(RandomKey key, uint64_t index, uint64_t bound) {
  for (uint64_t attempt = 0;; ++attempt) {
    const auto words = philox(attempt == 0 ? key : key.derive(attempt), index);
    for (const uint32_t word : words) {
      const uint64_t product = uint64_t{word} * bound;
      const auto low = static_cast<uint32_t>(product);
      if (low >= bound || low >= (uint64_t{1} << 32) % bound) return product >> 32;
    }
  }
}

}  // namespace weft
