// Bytes for chunks.
#pragma once

#include <cstdint>
#include <string>

namespace weft {

// Bytes that no compression helps with, the same for the same seed (Knuth's MMIX generator).
inline std::string noise(size_t size, uint64_t seed) {
  std::string bytes(size, '\0');
  uint64_t state = seed * 2 + 1;
  for (char& byte : bytes) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    byte = static_cast<char>(state >> 56);
  }
  return bytes;
}

}  // namespace weft
