#include "proto/json/pattern.h"

#include <algorithm>
#include <bitset>
#include <charconv>
#include <limits>
#include <optional>
#include <vector>

#include "proto/base/check.h"

namespace weft {
namespace {

constexpr size_t kUnbounded = std::numeric_limits<size_t>::max();

struct Atom {
  std::bitset<256> bytes;
  size_t min = 1;
  size_t max = 1;
};
using Sequence = std::vector<Atom>;

// Parses a pattern; every function moves `at_` on and returns false where the text is malformed.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::optional<std::vector<Sequence>> parse() {
    std::vector<Sequence> alternatives(1);
    while (at_ < text_.size()) {
      if (text_[at_] == '|') {
        ++at_;
        alternatives.emplace_back();
        continue;
      }
      Atom atom;
      if (!parse_bytes(atom) || !parse_quantifier(atom)) return std::nullopt;
      alternatives.back().push_back(atom);
    }
    return alternatives;
  }

 private:
  static size_t code(char c) { return static_cast<unsigned char>(c); }

  bool parse_bytes(Atom& atom) {
    char c = text_[at_++];
    if (c == '[') return parse_class(atom);
    if (c == '\\') return parse_escape(atom);
    if (std::string_view("*+?{}()]^$").find(c) != std::string_view::npos) return false;
    if (c == '.') {
      atom.bytes.set();
      atom.bytes.reset(code('\n'));
    } else {
      atom.bytes.set(code(c));
    }
    return true;
  }

  bool parse_escape(Atom& atom) {
    if (at_ >= text_.size()) return false;
    char c = text_[at_++];
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    atom.bytes.set(code(c));
    return !letter;  // \d, \w, \n, ... are not in the language
  }

  bool parse_class(Atom& atom) {
    bool negated = at_ < text_.size() && text_[at_] == '^';
    if (negated) ++at_;
    bool empty = true;
    while (at_ < text_.size() && text_[at_] != ']') {
      if (text_[at_] == '[') return false;
      if (text_[at_] == '\\' && ++at_ >= text_.size()) return false;
      size_t first = code(text_[at_++]);
      size_t last = first;
      if (at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']') {
        last = code(text_[at_ + 1]);
        at_ += 2;
      }
      if (last < first) return false;
      for (size_t byte = first; byte <= last; ++byte) atom.bytes.set(byte);
      empty = false;
    }
    if (at_ >= text_.size() || empty) return false;
    ++at_;
    if (negated) atom.bytes.flip();
    return true;
  }

  bool parse_count(size_t& count) {
    auto parsed = std::from_chars(text_.data() + at_, text_.data() + text_.size(), count);
    if (parsed.ec != std::errc()) return false;
    at_ = static_cast<size_t>(parsed.ptr - text_.data());
    return true;
  }

  bool parse_quantifier(Atom& atom) {
    if (at_ >= text_.size()) return true;
    switch (text_[at_]) {
      case '*':
        atom.min = 0;
        atom.max = kUnbounded;
        ++at_;
        return true;
      case '+':
        atom.max = kUnbounded;
        ++at_;
        return true;
      case '?':
        atom.min = 0;
        ++at_;
        return true;
      case '{':
        break;
      default:
        return true;
    }
    ++at_;
    if (!parse_count(atom.min)) return false;
    atom.max = atom.min;
    if (at_ < text_.size() && text_[at_] == ',') {
      ++at_;
      atom.max = kUnbounded;
      if (at_ < text_.size() && text_[at_] != '}' && !parse_count(atom.max)) return false;
    }
    return at_ < text_.size() && text_[at_++] == '}' && atom.min <= atom.max;
  }

  std::string_view text_;
  size_t at_ = 0;
};

// Keeps the set of offsets that the atoms so far can end at.
bool matches(std::string_view text, const Sequence& sequence) {
  std::vector<bool> ends(text.size() + 1, false);
  ends[0] = true;
  for (const Atom& atom : sequence) {
    std::vector<bool> next(text.size() + 1, false);
    for (size_t start = 0; start <= text.size(); ++start) {
      if (!ends[start]) continue;
      for (size_t count = 0; count <= atom.max; ++count) {
        if (count >= atom.min) next[start + count] = true;
        if (start + count >= text.size()) break;
        if (!atom.bytes[static_cast<unsigned char>(text[start + count])]) break;
      }
    }
    ends = std::move(next);
  }
  return ends[text.size()];
}

}  // namespace

bool is_pattern(std::string_view pattern) { return Parser(pattern).parse().has_value(); }

bool matches_pattern(std::string_view text, std::string_view pattern) {
  auto alternatives = Parser(pattern).parse();
  WEFT_CHECK(alternatives.has_value());
  return std::any_of(alternatives->begin(), alternatives->end(),
                     [&](const Sequence& sequence) { return matches(text, sequence); });
}

}  // namespace weft
