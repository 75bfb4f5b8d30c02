// SHA-256 for identity (chunks, objects, tokens) and HMAC-SHA-256, over OpenSSL.
// Thread safety: free functions and values.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace weft {

using Sha256Digest = std::array<uint8_t, 32>;

Sha256Digest sha256(std::string_view bytes);
std::string sha256_hex(std::string_view bytes);  // 64 lower-case hex digits
std::string to_hex(std::span<const uint8_t> bytes);
bool is_sha256_hex(std::string_view text);
Sha256Digest hmac_sha256(std::string_view key, std::string_view message);
bool equal_in_constant_time(std::string_view a, std::string_view b);

// `bytes` random bytes from the system's generator, as lower-case hex.
std::string random_hex(size_t bytes);

// Incremental SHA-256.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void update(std::string_view bytes);
  Sha256Digest finish();  // once
 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace weft
