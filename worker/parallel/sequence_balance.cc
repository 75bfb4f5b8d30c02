#include "worker/parallel/sequence_balance.h"

#include <algorithm>
#include <numeric>

namespace weft::parallel {
namespace {

std::vector<int64_t> sums_before(std::span<const int64_t> values) {
  std::vector<int64_t> sums{0};
  for (int64_t value : values) sums.push_back(sums.back() + value);
  return sums;
}

// `pieces` chunks a rank. In each round every rank gets one, the one with least so far the dearest.
SequenceLayout dealt(const std::vector<int64_t>& cost_before, int64_t tokens, int ranks,
                     int pieces) {
  const int count = ranks * pieces;
  std::vector<Part> chunks;
  for (int i = 0; i < count; ++i) chunks.push_back(part_of(tokens, count, i));
  const auto cost_of = [&](const Part& chunk) {
    return cost_before[static_cast<size_t>(chunk.start + chunk.length)] -
           cost_before[static_cast<size_t>(chunk.start)];
  };
  std::stable_sort(chunks.begin(), chunks.end(),
                   [&](const Part& a, const Part& b) { return cost_of(a) > cost_of(b); });
  std::vector<std::vector<Part>> runs(static_cast<size_t>(ranks));
  std::vector<int64_t> load(static_cast<size_t>(ranks));
  std::vector<size_t> order(static_cast<size_t>(ranks));
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t next = 0; next < chunks.size(); next += order.size()) {
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return load[a] < load[b]; });
    for (size_t i = 0; i < order.size(); ++i) {
      const Part& chunk = chunks[next + i];
      runs[order[i]].push_back(chunk);
      load[order[i]] += cost_of(chunk);
    }
  }
  for (std::vector<Part>& own : runs) {
    std::sort(own.begin(), own.end(),
              [](const Part& a, const Part& b) { return a.start < b.start; });
  }
  return {tokens, std::move(runs)};
}

double imbalance_of(const SequenceLayout& layout, const std::vector<int64_t>& cost_before) {
  int64_t most = 0;
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    int64_t load = 0;
    for (const Part& run : layout.runs(rank)) {
      load += cost_before[static_cast<size_t>(run.start + run.length)] -
              cost_before[static_cast<size_t>(run.start)];
    }
    most = std::max(most, load);
  }
  const int64_t all = cost_before.back();
  return all == 0 ? 1
                  : static_cast<double>(most) * static_cast<double>(layout.ranks()) /
                        static_cast<double>(all);
}

}  // namespace

std::vector<int64_t> keys_seen(const AttentionPattern& pattern, int64_t tokens,
                               std::span<const int64_t> documents, std::span<const uint8_t> valid) {
  std::vector<int64_t> valid_before{0};
  for (int64_t token = 0; token < tokens; ++token) {
    const bool counts = valid.empty() || valid[static_cast<size_t>(token)] != 0;
    valid_before.push_back(valid_before.back() + (counts ? 1 : 0));
  }
  const auto document = [&](int64_t token) {
    return documents.empty() ? 0 : documents[static_cast<size_t>(token)];
  };
  std::vector<int64_t> seen;
  int64_t begin = 0, end = 0;  // of the document
  for (int64_t token = 0; token < tokens; ++token) {
    if (token == end) {
      begin = token;
      while (end < tokens && document(end) == document(begin)) ++end;
    }
    int64_t first = begin, last = pattern.causal ? token + 1 : end;
    if (pattern.window_left >= 0) first = std::max(first, token - pattern.window_left);
    if (pattern.window_right >= 0) last = std::min(last, token + pattern.window_right + 1);
    seen.push_back(valid_before[static_cast<size_t>(last)] -
                   valid_before[static_cast<size_t>(first)]);
  }
  return seen;
}

SequenceLayout balanced_layout(std::span<const int64_t> cost, int ranks) {
  const auto tokens = static_cast<int64_t>(cost.size());
  const std::vector<int64_t> before = sums_before(cost);
  SequenceLayout best = SequenceLayout::contiguous(tokens, ranks);
  double least = imbalance_of(best, before);
  for (int pieces = 2; least > kBalance; ++pieces) {
    if (pieces > 2 && tokens < int64_t{ranks} * pieces * kChunkMin) break;
    SequenceLayout layout = dealt(before, tokens, ranks, pieces);
    const double uneven = imbalance_of(layout, before);
    if (uneven >= least) continue;
    best = std::move(layout);
    least = uneven;
  }
  return best;
}

double imbalance(const SequenceLayout& layout, std::span<const int64_t> cost) {
  return imbalance_of(layout, sums_before(cost));
}

}  // namespace weft::parallel
