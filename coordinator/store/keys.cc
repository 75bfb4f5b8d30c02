#include "coordinator/store/keys.h"

#include "proto/base/check.h"

namespace weft::keys {

std::string big_endian(uint64_t value, int bytes) {
  std::string text(static_cast<size_t>(bytes), '\0');
  for (int i = bytes - 1; i >= 0; --i, value >>= 8) {
    text[static_cast<size_t>(i)] = static_cast<char>(value & 0xff);
  }
  return text;
}

uint64_t from_big_endian(std::string_view bytes) {
  uint64_t value = 0;
  for (char byte : bytes) value = value << 8 | static_cast<uint8_t>(byte);
  return value;
}

std::string after(const std::string& prefix) {
  WEFT_CHECK(!prefix.empty() && static_cast<uint8_t>(prefix.back()) < 0xff);
  std::string end = prefix;
  end.back() = static_cast<char>(static_cast<uint8_t>(end.back()) + 1);
  return end;
}

}  // namespace weft::keys
