#include "worker/data/permutation.h"

#include <algorithm>
#include <utility>

#include "proto/json/job_rules.h"
#include "worker/data/draw.h"

namespace weft {

Permutation::Permutation(const Tokenizer& tokenizer, double rate, int64_t tokens)
    : rate_(rate),
      predictions_(permuted_tokens(rate, tokens)),
      special_(tokenizer.special_ids().begin(), tokenizer.special_ids().end()) {}

void Permutation::add(RandomKey key, Visit visit, std::span<const int64_t> ids,
                      TaskRows& rows) const {
  std::vector<int64_t> places;
  for (size_t place = 0; place < ids.size(); ++place) {
    if (std::ranges::binary_search(special_, ids[place])) continue;
    places.push_back(static_cast<int64_t>(place));
  }
  const int64_t ordinary = std::ssize(places);
  const int64_t count = std::min(permuted_tokens(rate_, std::ssize(ids)), ordinary);
  // The end of an order of all: count of them, drawn one after the other.
  const RandomKey drawn =
      key.derive(static_cast<uint64_t>(visit.epoch), static_cast<uint64_t>(visit.sample));
  for (int64_t i = 0; i < count; ++i) {
    const auto index = static_cast<uint64_t>(i);
    const uint64_t other = index + below(drawn, index, static_cast<uint64_t>(ordinary - i));
    std::swap(places[index], places[other]);
  }
  places.resize(static_cast<size_t>(count));
  const auto row = std::ssize(rows.order);
  rows.order.resize(rows.order.size() + static_cast<size_t>(rows.tokens), 0);
  for (int64_t i = 0; i < count; ++i) {
    rows.order[static_cast<size_t>(row + places[static_cast<size_t>(i)])] = i + 1;
  }
  std::ranges::sort(places);
  for (const int64_t place : places) {
    rows.places.push_back(place);
    rows.labels.push_back(ids[static_cast<size_t>(place)]);
  }
  const auto room = rows.places.size() + static_cast<size_t>(predictions_ - count);
  rows.places.resize(room, 0);
  rows.labels.resize(room, kNoLabel);
}

}  // namespace weft
