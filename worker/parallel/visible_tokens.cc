#include "worker/parallel/visible_tokens.h"

#include <algorithm>

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

VisibleTokens::VisibleTokens(const attention::Visibility& whole, int64_t rows, int64_t queries,
                             int64_t keys)
    : rules_(rules_of(whole)),
      rows_(rows),
      queries_{queries, values_of<int64_t>(whole.query_position, rows, queries),
               values_of<int64_t>(whole.query_document, rows, queries)},
      keys_{keys, values_of<int64_t>(whole.key_position, rows, keys),
            values_of<int64_t>(whole.key_document, rows, keys)},
      key_valid_(values_of<uint8_t>(whole.key_valid, rows, keys)) {}

VisibleTokens::Ranges VisibleTokens::ranges(const Side& side, int64_t row, Part run) {
  const auto range_of = [&](const std::vector<int64_t>& values) {
    if (values.empty()) return Range{run.start, run.start + run.length - 1};
    const auto begin = values.begin() + row * side.tokens + run.start;
    const auto [least, most] = std::minmax_element(begin, begin + run.length);
    return Range{*least, *most};
  };
  return {range_of(side.position), range_of(side.document)};
}

bool VisibleTokens::may_see(const Ranges& queries, const Ranges& keys) const {
  if (!keys_.document.empty() && (keys.document.least > queries.document.most ||
                                  keys.document.most < queries.document.least)) {
    return false;
  }
  const Range &query = queries.position, &key = keys.position;
  return (rules_.window_right < 0 || key.least - rules_.window_right <= query.most) &&
         (rules_.window_left < 0 || key.most + rules_.window_left >= query.least);
}

std::vector<Part> VisibleTokens::of(const std::vector<Part>& keys,
                                    const std::vector<Part>& queries) const {
  struct Reader {
    int64_t row;
    Ranges queries;
  };
  std::vector<Reader> readers;
  for (int64_t row = 0; row < rows_; ++row) {
    for (const Part& run : queries) {
      readers.push_back({row, ranges(queries_, row, run)});
    }
  }
  std::vector<Part> seen;
  for (const Part& run : keys) {
    std::vector<Reader> near;  // those of the run as a whole
    for (const Reader& reader : readers) {
      const Ranges whole = ranges(keys_, reader.row, run);
      if (may_see(reader.queries, whole)) near.push_back(reader);
    }
    const auto anybody = [&](int64_t token) {
      return std::any_of(near.begin(), near.end(), [&](const Reader& reader) {
        return valid(reader.row, token) &&
               may_see(reader.queries, ranges(keys_, reader.row, {token, 1}));
      });
    };
    int64_t first = run.start, end = run.start + run.length;
    if (near.empty()) continue;
    while (first < end && !anybody(first)) ++first;
    while (first < end && !anybody(end - 1)) --end;
    if (first < end) seen.push_back({first, end - first});
  }
  return seen;
}

template <typename T>
Tensor VisibleTokens::gathered(Allocator& allocator, const std::vector<T>& whole, int64_t tokens,
                               const std::vector<Part>& runs) const {
  std::vector<T> some;
  for (int64_t row = 0; row < rows_; ++row) {
    for (const Part& run : runs) {
      const auto begin = whole.begin() + row * tokens + run.start;
      some.insert(some.end(), begin, begin + run.length);
    }
  }
  return Tensor::from<T>(allocator, {rows_, total_length(runs)}, some);
}

Tensor VisibleTokens::positions(Allocator& allocator, const Side& side,
                                const std::vector<Part>& runs) const {
  if (!side.position.empty()) return gathered(allocator, side.position, side.tokens, runs);
  std::vector<int64_t> some;
  for (int64_t row = 0; row < rows_; ++row) {
    for (const Part& run : runs) {
      for (int64_t i = 0; i < run.length; ++i) some.push_back(run.start + i);
    }
  }
  return Tensor::from<int64_t>(allocator, {rows_, total_length(runs)}, some);
}

attention::Visibility VisibleTokens::cut(Allocator& allocator, const std::vector<Part>& queries,
                                         const std::vector<Part>& keys, bool with_positions) const {
  attention::Visibility some = rules_;
  if (by_position() || with_positions) {
    some.query_position = positions(allocator, queries_, queries);
    some.key_position = positions(allocator, keys_, keys);
  }
  if (!key_valid_.empty()) some.key_valid = gathered(allocator, key_valid_, keys_.tokens, keys);
  if (!queries_.document.empty()) {
    some.query_document = gathered(allocator, queries_.document, queries_.tokens, queries);
    some.key_document = gathered(allocator, keys_.document, keys_.tokens, keys);
  }
  return some;
}

}  // namespace weft::parallel
