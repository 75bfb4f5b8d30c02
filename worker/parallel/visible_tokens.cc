#include "worker/parallel/visible_tokens.h"

#include <algorithm>
#include <numeric>

namespace weft::parallel {
namespace {

template <typename T>
std::vector<T> values_of(const Tensor& x, int64_t rows, int64_t tokens) {
  if (!x) return {};
  WEFT_CHECK((x.shape() == Shape{rows, tokens}), "{} where all {} tokens of {} rows are due",
             x.shape().to_string(), tokens, rows);
  return x.to_vector<T>();
}

attention::Visibility rules_of(const attention::Visibility& whole) {
  WEFT_CHECK(!whole.mask, "an arbitrary mask is not cut");
  attention::Visibility rules;
  rules.causal = whole.causal;
  rules.window_left = whole.window_left;
  rules.window_right = whole.causal ? 0 : whole.window_right;
  return rules;
}

}  // namespace

VisibleTokens::VisibleTokens(const attention::Visibility& whole, int64_t rows, int64_t tokens)
    : rules_(rules_of(whole)),
      rows_(rows),
      tokens_(tokens),
      query_position_(values_of<int64_t>(whole.query_position, rows, tokens)),
      key_position_(values_of<int64_t>(whole.key_position, rows, tokens)),
      query_document_(values_of<int64_t>(whole.query_document, rows, tokens)),
      key_document_(values_of<int64_t>(whole.key_document, rows, tokens)),
      key_valid_(values_of<uint8_t>(whole.key_valid, rows, tokens)) {}

std::vector<VisibleTokens::Seekers> VisibleTokens::seekers(const std::vector<Part>& queries,
                                                           int64_t row) const {
  const auto range_of = [&](const std::vector<int64_t>& values, Part run) {
    if (values.empty()) return Range{run.start, run.start + run.length - 1};
    const auto begin = values.begin() + at(row, run.start);
    const auto [least, most] = std::minmax_element(begin, begin + run.length);
    return Range{*least, *most};
  };
  std::vector<Seekers> all;
  for (const Part& run : queries) {
    all.push_back({range_of(query_position_, run), range_of(query_document_, run)});
  }
  return all;
}

bool VisibleTokens::sees(const Seekers& seekers, int64_t row, int64_t token) const {
  const auto place = static_cast<size_t>(at(row, token));
  if (!key_valid_.empty() && key_valid_[place] == 0) return false;
  if (!key_document_.empty()) {
    const int64_t document = key_document_[place];
    if (document < seekers.document.least || document > seekers.document.most) return false;
  }
  const int64_t position = key_position_.empty() ? token : key_position_[place];
  const Range& query = seekers.position;
  return (rules_.window_right < 0 || position - rules_.window_right <= query.most) &&
         (rules_.window_left < 0 || position + rules_.window_left >= query.least);
}

std::vector<Part> VisibleTokens::of(const std::vector<Part>& keys,
                                    const std::vector<Part>& queries) const {
  std::vector<Part> seen;
  if (queries.empty()) return seen;
  std::vector<std::vector<Seekers>> by_row;
  for (int64_t row = 0; row < rows_; ++row) by_row.push_back(seekers(queries, row));
  const auto anybody = [&](int64_t token) {
    for (int64_t row = 0; row < rows_; ++row) {
      for (const Seekers& some : by_row[static_cast<size_t>(row)]) {
        if (sees(some, row, token)) return true;
      }
    }
    return false;
  };
  for (const Part& run : keys) {
    int64_t first = run.start, end = run.start + run.length;
    while (first < end && !anybody(first)) ++first;
    while (first < end && !anybody(end - 1)) --end;
    if (first < end) seen.push_back({first, end - first});
  }
  return seen;
}

template <typename T>
Tensor VisibleTokens::gathered(Allocator& allocator, const std::vector<T>& whole,
                               const std::vector<Part>& runs) const {
  std::vector<T> some;
  for (int64_t row = 0; row < rows_; ++row) {
    for (const Part& run : runs) {
      const auto begin = whole.begin() + at(row, run.start);
      some.insert(some.end(), begin, begin + run.length);
    }
  }
  return Tensor::from<T>(allocator, {rows_, total_length(runs)}, some);
}

attention::Visibility VisibleTokens::cut(Allocator& allocator, const std::vector<Part>& queries,
                                         const std::vector<Part>& keys, bool positions) const {
  attention::Visibility some = rules_;
  std::vector<int64_t> counted;
  const auto position = [&](const std::vector<int64_t>& whole, const std::vector<Part>& runs) {
    if (!whole.empty()) return gathered(allocator, whole, runs);
    if (counted.empty()) {
      for (int64_t row = 0; row < rows_; ++row) {
        for (int64_t token = 0; token < tokens_; ++token) counted.push_back(token);
      }
    }
    return gathered(allocator, counted, runs);
  };
  if (by_position() || positions) {
    some.query_position = position(query_position_, queries);
    some.key_position = position(key_position_, keys);
  }
  if (!key_valid_.empty()) some.key_valid = gathered(allocator, key_valid_, keys);
  if (!query_document_.empty()) {
    some.query_document = gathered(allocator, query_document_, queries);
    some.key_document = gathered(allocator, key_document_, keys);
  }
  return some;
}

}  // namespace weft::parallel
