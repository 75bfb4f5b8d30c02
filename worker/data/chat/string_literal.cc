#include "worker/data/chat/string_literal.h"

#include <algorithm>
#include <charconv>

#include "worker/data/tokenizers/byte_alphabet.h"

namespace weft::chat {
namespace {

// The code point of `digits` digits to the base; they are taken off `rest`.
uint32_t number(std::string_view& rest, size_t digits, int base, Place place) {
  uint32_t code = 0;
  const std::string_view taken = rest.substr(0, digits);
  const auto read = std::from_chars(taken.data(), taken.data() + taken.size(), code, base);
  if (read.ec != std::errc() || read.ptr != taken.data() + digits) {
    refuse(place, "an escape in the string is incomplete");
  }
  if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
    refuse(place, "an escape in the string is no character");
  }
  rest.remove_prefix(digits);
  return code;
}

size_t octal_digits(std::string_view rest) {
  size_t digits = 0;
  while (digits < std::min<size_t>(3, rest.size()) && rest[digits] >= '0' && rest[digits] <= '7') {
    ++digits;
  }
  return digits;
}

}  // namespace

std::string unescaped(std::string_view rest, Place place) {
  static constexpr std::string_view kLetters = "\\'\"abfnrtv", kMeanings = "\\'\"\a\b\f\n\r\t\v";
  std::string text;
  while (!rest.empty()) {
    const char c = rest.front();
    rest.remove_prefix(1);
    if (c != '\\') {
      text += c;
      continue;
    }
    const char letter = rest.front();  // there is one: else the string would have no end
    const size_t simple = kLetters.find(letter);
    if (static_cast<unsigned char>(letter) >= 0x80 || letter == 'N') {
      refuse(place, std::string("an escape in the string is not supported: \\") +
                        (letter == 'N' ? "N" : "before a character beyond ASCII"));
    }
    if (const size_t octal = octal_digits(rest); octal > 0) {
      text += tokenizers::utf8_of(number(rest, octal, 8, place));
      continue;
    }
    rest.remove_prefix(1);
    if (simple != std::string_view::npos) {
      text += kMeanings[simple];
    } else if (letter == 'x' || letter == 'u' || letter == 'U') {
      text += tokenizers::utf8_of(number(rest,
                                         letter == 'x'   ? 2
                                         : letter == 'u' ? 4
                                                         : 8,
                                         16, place));
    } else if (letter != '\n') {
      text += '\\';
      text += letter;
    }
  }
  return text;
}

}  // namespace weft::chat
