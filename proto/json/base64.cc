#include "proto/json/base64.h"

#include <cstdint>

namespace weft {
namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string base64_encode(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    size_t count = bytes.size() - at < 3 ? bytes.size() - at : 3;
    uint32_t group = 0;
    for (size_t i = 0; i < 3; ++i) {
      group = group << 8 | (i < count ? static_cast<unsigned char>(bytes[at + i]) : 0U);
    }
    for (size_t i = 0; i < 4; ++i) {
      text += i <= count ? kAlphabet[(group >> (18 - 6 * i)) & 63] : '=';
    }
  }
  return text;
}

std::optional<std::string> base64_decode(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  std::string bytes;
  for (size_t at = 0; at < text.size(); at += 4) {
    size_t count = 4;
    if (at + 4 == text.size()) count = text[at + 3] != '=' ? 4 : text[at + 2] != '=' ? 3 : 2;
    uint32_t group = 0;
    for (size_t i = 0; i < 4; ++i) {
      size_t digit = i < count ? kAlphabet.find(text[at + i]) : 0;
      if (digit == std::string_view::npos) return std::nullopt;
      group = group << 6 | static_cast<uint32_t>(digit);
    }
    for (size_t i = 0; i + 1 < 4; ++i) {
      char byte = static_cast<char>((group >> (16 - 8 * i)) & 0xFF);
      if (i + 1 < count) {
        bytes += byte;
      } else if (byte != 0) {
        return std::nullopt;  // bits that no encoder sets
      }
    }
  }
  return bytes;
}

}  // namespace weft
