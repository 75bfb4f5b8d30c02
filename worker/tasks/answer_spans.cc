#include "worker/tasks/answer_spans.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace weft {
namespace {

constexpr int64_t kEndsTried = 20;
constexpr int64_t kTokensMax = 30;  // of an answer

// Places of the largest, the first of equal ones first.
std::vector<int64_t> largest(std::span<const float> values) {
  std::vector<int64_t> places(values.size());
  std::iota(places.begin(), places.end(), 0);
  const auto count = std::min<int64_t>(kEndsTried, std::ssize(places));
  std::partial_sort(places.begin(), places.begin() + count, places.end(),
                    [&](int64_t a, int64_t b) {
                      const float x = values[static_cast<size_t>(a)];
                      const float y = values[static_cast<size_t>(b)];
                      return x != y ? x > y : a < b;
                    });
  places.resize(static_cast<size_t>(count));
  return places;
}

// The logarithm of the sum of exponentials, by which a logit is a probability's.
double log_sum(std::span<const float> logits, const ContextWindow& window) {
  const auto text =
      logits.subspan(static_cast<size_t>(window.first), static_cast<size_t>(window.tokens));
  const double top = std::max(double{logits.front()}, double{*std::ranges::max_element(text)});
  double sum = std::exp(double{logits.front()} - top);
  for (const float logit : text) sum += std::exp(double{logit} - top);
  return top + std::log(sum);
}

// Of a row's logits those of the text.
std::vector<float> within(std::span<const float> logits, const ContextWindow& window) {
  std::vector<float> kept(logits.size(), -std::numeric_limits<float>::infinity());
  std::copy_n(logits.begin() + window.first, window.tokens, kept.begin() + window.first);
  return kept;
}

}  // namespace

FoundAnswer best_answer(std::span<const float> starts, std::span<const float> ends,
                        const ContextWindow& window) {
  FoundAnswer best{window.sample,
                   {},
                   -std::numeric_limits<double>::infinity(),
                   double{starts.front()} + double{ends.front()}};
  const int64_t behind = window.first + window.tokens;
  const std::vector<int64_t> lasts = largest(ends);
  for (const int64_t first : largest(starts)) {
    for (const int64_t last : lasts) {
      const bool allowed =
          first >= window.first && last >= first && last < behind && last - first < kTokensMax;
      const double score =
          double{starts[static_cast<size_t>(first)]} + double{ends[static_cast<size_t>(last)]};
      if (!allowed || score <= best.score) continue;
      best.span = {first - window.first, last - window.first};
      best.score = score;
    }
  }
  return best;
}

FoundAnswer likeliest_answer(std::span<const float> starts, std::span<const float> ends,
                             const ContextWindow& window) {
  FoundAnswer best = best_answer(starts, ends, window);
  if (best.span.first < 0) {
    const double none_score = best.none_score;
    best = best_answer(within(starts, window), within(ends, window), window);
    best.none_score = none_score;
  }
  best.log_total = log_sum(starts, window) + log_sum(ends, window);
  return best;
}

}  // namespace weft
