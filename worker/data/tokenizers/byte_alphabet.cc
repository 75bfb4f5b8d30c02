#include "worker/data/tokenizers/byte_alphabet.h"

namespace weft::tokenizers {
namespace {

bool prints(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr uint32_t kFirst = 0x100;

std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table = {};
  uint32_t next = kFirst;
  for (uint32_t byte = 0; byte < 256; ++byte) table[byte] = prints(byte) ? byte : next++;
  return table;
}

std::array<int, 512> make_inverse() {
  std::array<int, 512> inverse;
  inverse.fill(-1);
  for (uint32_t byte = 0; byte < 256; ++byte) {
    inverse[byte_to_code_point()[byte]] = static_cast<int>(byte);
  }
  return inverse;
}

}  // namespace

const std::array<uint32_t, 256>& byte_to_code_point() {
  static const std::array<uint32_t, 256> kTable = make_table();
  return kTable;
}

int code_point_to_byte(uint32_t code_point) {
  static const std::array<int, 512> kInverse = make_inverse();
  return code_point < kInverse.size() ? kInverse[code_point] : -1;
}

std::string utf8_of(uint32_t code_point) {
  const auto low = [](uint32_t bits) { return static_cast<char>(0x80U | (bits & 0x3FU)); };
  if (code_point < 0x80) return {static_cast<char>(code_point)};
  if (code_point < 0x800) return {static_cast<char>(0xC0U | (code_point >> 6)), low(code_point)};
  if (code_point < 0x10000) {
    return {static_cast<char>(0xE0U | (code_point >> 12)), low(code_point >> 6), low(code_point)};
  }
  return {static_cast<char>(0xF0U | (code_point >> 18)), low(code_point >> 12),
          low(code_point >> 6), low(code_point)};
}

std::optional<std::string> raw_bytes(std::string_view token) {
  std::string raw;
  for (size_t i = 0; i < token.size();) {
    const auto byte = static_cast<unsigned char>(token[i]);
    uint32_t code_point = byte;
    if (byte >= 0x80) {
      if (byte < 0xC0 || byte >= 0xE0 || i + 1 == token.size()) return std::nullopt;
      code_point = (byte & 0x1FU) << 6 | (static_cast<unsigned char>(token[i + 1]) & 0x3FU);
      ++i;
    }
    ++i;
    const int value = code_point_to_byte(code_point);
    if (value < 0) return std::nullopt;
    raw += static_cast<char>(value);
  }
  return raw;
}

}  // namespace weft::tokenizers
