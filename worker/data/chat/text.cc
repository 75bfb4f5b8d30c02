#include "worker/data/chat/text.h"

#include <fmt/format.h>

#include <algorithm>

#include "proto/json/utf8.h"
#include "worker/data/tokenizers/unicode.h"

namespace weft::chat {
namespace {

bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
char to_upper(char c) { return is_lower(c) ? static_cast<char>(c - 'a' + 'A') : c; }
char to_lower(char c) { return is_upper(c) ? static_cast<char>(c - 'A' + 'a') : c; }

size_t bytes_at(std::string_view text) { return std::max<size_t>(1, utf8_sequence_bytes(text)); }

// str.isspace() of a character.
bool is_space(std::string_view character) {
  if (character.size() == 1) {
    const char c = character.front();
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= '\x1c' && c <= '\x1f');
  }
  size_t bytes = 0;
  const uint32_t code = tokenizers::code_point_at(character, &bytes);
  return code == 0x85 || code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) ||
         code == 0x2028 || code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

// What ends a line for splitlines(); "\r\n" is seen to by the caller.
bool ends_line(std::string_view character) {
  if (character.size() == 1) {
    const char c = character.front();
    return (c >= '\n' && c <= '\r') || (c >= '\x1c' && c <= '\x1e');
  }
  return character == "\xc2\x85" || character == "\xe2\x80\xa8" || character == "\xe2\x80\xa9";
}

std::string_view last_character(std::string_view text) {
  return text.substr(tokenizers::last_start(text));
}

std::vector<std::string_view> split_at_space(std::string_view text, int64_t times,
                                             bool from_right) {
  std::vector<std::string_view> parts;
  const Side side = from_right ? Side::kRight : Side::kLeft;
  text = stripped(text, side);
  while (!text.empty()) {
    size_t word = 0;
    if (times >= 0 && static_cast<int64_t>(parts.size()) == times) {
      word = text.size();  // the rest, with the space at its far end
    } else if (from_right) {
      for (std::string_view rest = text; !rest.empty() && !is_space(last_character(rest));) {
        word += last_character(rest).size();
        rest.remove_suffix(last_character(rest).size());
      }
    } else {
      while (word < text.size()) {
        const size_t bytes = bytes_at(text.substr(word));
        if (is_space(text.substr(word, bytes))) break;
        word += bytes;
      }
    }
    parts.push_back(from_right ? text.substr(text.size() - word) : text.substr(0, word));
    from_right ? text.remove_suffix(word) : text.remove_prefix(word);
    text = stripped(text, side);
  }
  return parts;
}

}  // namespace

std::string_view take_character(std::string_view& rest) {
  const std::string_view one = rest.substr(0, bytes_at(rest));
  rest.remove_prefix(one.size());
  return one;
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> all;
  while (!text.empty()) all.push_back(take_character(text));
  return all;
}

int64_t character_count(std::string_view text) { return tokenizers::count_code_points(text); }

bool is_ascii(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::string_view stripped(std::string_view text, Side side, std::optional<std::string_view> set) {
  const auto goes = [&](std::string_view character) {
    return set ? set->find(character) != std::string_view::npos : is_space(character);
  };
  while (side != Side::kRight && !text.empty()) {
    const size_t bytes = bytes_at(text);
    if (!goes(text.substr(0, bytes))) break;
    text.remove_prefix(bytes);
  }
  while (side != Side::kLeft && !text.empty() && goes(last_character(text))) {
    text.remove_suffix(last_character(text).size());
  }
  return text;
}

std::vector<std::string_view> split(std::string_view text,
                                    std::optional<std::string_view> separator, int64_t times,
                                    bool from_right) {
  std::vector<std::string_view> parts;
  if (!separator) {
    parts = split_at_space(text, times, from_right);
  } else {
    while (times < 0 || static_cast<int64_t>(parts.size()) < times) {
      const size_t at = from_right ? text.rfind(*separator) : text.find(*separator);
      if (at == std::string_view::npos) break;
      const size_t behind = at + separator->size();
      parts.push_back(from_right ? text.substr(behind) : text.substr(0, at));
      text = from_right ? text.substr(0, at) : text.substr(behind);
    }
    parts.push_back(text);
  }
  if (from_right) std::ranges::reverse(parts);
  return parts;
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  size_t start = 0, at = 0;
  while (at < text.size()) {
    const size_t bytes = bytes_at(text.substr(at));
    const std::string_view one = text.substr(at, bytes);
    at += bytes;
    if (!ends_line(one)) continue;
    lines.push_back(text.substr(start, at - bytes - start));
    if (one == "\r" && at < text.size() && text[at] == '\n') ++at;
    start = at;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

std::string replaced(Run& run, std::string_view text, std::string_view old, std::string_view with,
                     int64_t times) {
  Text out(run);
  for (; times != 0; --times) {
    if (old.empty()) {  // before each character, and at the end
      out << with;
      if (text.empty()) return out.take();
      out << text.substr(0, bytes_at(text));
      text.remove_prefix(bytes_at(text));
      continue;
    }
    const size_t at = text.find(old);
    if (at == std::string_view::npos) break;
    out << text.substr(0, at) << with;
    text.remove_prefix(at + old.size());
  }
  out << text;
  return out.take();
}

std::string repr(std::string_view text) {
  const bool twice =
      text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = twice ? '"' : '\'';
  std::string out(1, quote);
  while (!text.empty()) {
    const std::string_view one = take_character(text);
    size_t bytes = 0;
    const uint32_t code = tokenizers::code_point_at(one, &bytes);
    if (one == "\\" || one == std::string_view(&quote, 1)) {
      out += '\\';
      out += one;
    } else if (one == "\n") {
      out += "\\n";
    } else if (one == "\r") {
      out += "\\r";
    } else if (one == "\t") {
      out += "\\t";
    } else if (tokenizers::is_printable(code)) {
      out += one;
    } else if (code < 0x100) {
      out += fmt::format("\\x{:02x}", code);
    } else if (code < 0x10000) {
      out += fmt::format("\\u{:04x}", code);
    } else {
      out += fmt::format("\\U{:08x}", code);
    }
  }
  return out + quote;
}

std::string upper(std::string text) {
  std::ranges::transform(text, text.begin(), to_upper);
  return text;
}

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), to_lower);
  return text;
}

std::string capitalized(std::string text) {
  text = lower(std::move(text));
  if (!text.empty()) text.front() = to_upper(text.front());
  return text;
}

std::string title_method(std::string text) {
  bool within = false;
  for (char& c : text) {
    c = within ? to_lower(c) : to_upper(c);
    within = is_upper(c) || is_lower(c);
  }
  return text;
}

std::string title_filter(std::string text) {
  bool within = false;
  for (char& c : text) {
    const bool parts =
        is_space({&c, 1}) || std::string_view("-({[<").find(c) != std::string_view::npos;
    c = within ? to_lower(c) : to_upper(c);
    within = !parts;
  }
  return text;
}

SliceRange slice_range(std::optional<int64_t> start, std::optional<int64_t> stop, int64_t step,
                       int64_t size) {
  const int64_t least = step < 0 ? -1 : 0, most = step < 0 ? size - 1 : size;
  const auto clamped = [&](int64_t index) {
    if (index < 0) index += size;  // no overflow: size is at least 0
    return std::clamp(index, least, most);
  };
  return {start      ? clamped(*start)
          : step < 0 ? most
                     : 0,
          stop       ? clamped(*stop)
          : step < 0 ? -1
                     : size,
          step};
}

}  // namespace weft::chat
