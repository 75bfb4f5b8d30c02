#include "worker/data/text_errors.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace weft {
namespace {

constexpr std::string_view kSpaces = " \t\n\r\f\v";

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> words;
  for (size_t at = text.find_first_not_of(kSpaces); at != std::string_view::npos;
       at = text.find_first_not_of(kSpaces, at)) {
    const size_t end = std::min(text.find_first_of(kSpaces, at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

// Each a character's bytes: what begins none belongs to the one before.
std::vector<std::string_view> characters_of(std::string_view text) {
  const size_t first = text.find_first_not_of(kSpaces);
  if (first == std::string_view::npos) return {};
  text = text.substr(first, text.find_last_not_of(kSpaces) + 1 - first);
  std::vector<std::string_view> characters;
  for (size_t at = 0; at < text.size();) {
    size_t end = at + 1;
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) ++end;
    characters.push_back(text.substr(at, end - at));
    at = end;
  }
  return characters;
}

// Row by row of the table of distances of what both begin with.
int64_t distance(const std::vector<std::string_view>& from,
                 const std::vector<std::string_view>& to) {
  std::vector<int64_t> row(to.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 0; i < from.size(); ++i) {
    int64_t diagonal = row[0]++;
    for (size_t j = 0; j < to.size(); ++j) {
      const int64_t replaced = diagonal + (from[i] == to[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j + 1] + 1, row[j] + 1});
    }
  }
  return row.back();
}

double share(int64_t part, int64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

void ErrorSums::add(std::string_view reference, std::string_view found) {
  const auto said_words = words_of(reference), said = characters_of(reference);
  word_errors += distance(said_words, words_of(found));
  words += std::ssize(said_words);
  character_errors += distance(said, characters_of(found));
  characters += std::ssize(said);
}

double ErrorSums::word_error_rate() const { return share(word_errors, words); }
double ErrorSums::character_error_rate() const { return share(character_errors, characters); }

}  // namespace weft
