#include "proto/json/file_path.h"

#include <fmt/format.h>

#include <algorithm>

#include "proto/json/utf8.h"
#include "proto/json/value.h"

namespace weft {
namespace {

constexpr size_t kPathBytesMax = 1024, kPartBytesMax = 255;

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

}  // namespace

Status check_file_path(std::string_view path) {
  const auto refuse = [&](const std::string& rule) {
    return Status::invalid("path", escaped(path), rule);
  };
  if (path.empty() || path.size() > kPathBytesMax) return refuse("must have 1 to 1024 bytes");
  if (std::ranges::any_of(path, is_control)) return refuse("must not contain control characters");
  if (utf8_first_invalid(path) != std::string_view::npos) return refuse("must be valid UTF-8");
  if (path.find('\\') != std::string_view::npos) return refuse("must not contain a backslash");
  while (true) {
    const size_t end = std::min(path.find('/'), path.size());
    const std::string_view part = path.substr(0, end);
    if (part.empty()) return refuse("must be relative, without empty parts");
    if (part == "." || part == "..") return refuse("must not contain \".\" or \"..\" parts");
    if (part.size() > kPartBytesMax) return refuse("must have parts of at most 255 bytes");
    if (end == path.size()) return {};
    path.remove_prefix(end + 1);
  }
}

std::string escaped(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const char c = text.front();
    const size_t bytes = utf8_sequence_bytes(text);
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\\') {
      out += "\\\\";
    } else if (bytes == 0 || is_control(c)) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += text.substr(0, bytes);
    }
    text.remove_prefix(std::max<size_t>(bytes, 1));
  }
  return shortened(out, 200);
}

}  // namespace weft
