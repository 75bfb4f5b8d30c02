#include "worker/parallel/sequence_layout.h"

#include <algorithm>
#include <utility>

namespace weft::parallel {
namespace {

// Adds a run behind the others, joined to the last where it follows it.
void append(std::vector<Part>& runs, Part run) {
  if (run.length == 0) return;
  if (!runs.empty() && runs.back().start + runs.back().length == run.start) {
    runs.back().length += run.length;
    return;
  }
  WEFT_CHECK(runs.empty() || runs.back().start + runs.back().length < run.start,
             "a run from {} behind one from {}", run.start, runs.back().start);
  runs.push_back(run);
}

}  // namespace

int64_t total_length(const std::vector<Part>& runs) {
  int64_t length = 0;
  for (const Part& run : runs) length += run.length;
  return length;
}

SequenceLayout::SequenceLayout(int64_t tokens, std::vector<std::vector<Part>> runs)
    : tokens_(tokens) {
  int64_t held = 0;
  for (const std::vector<Part>& own : runs) {
    std::vector<Part> joined;
    for (const Part& run : own) append(joined, run);
    runs_.push_back(std::move(joined));
    lengths_.push_back(total_length(runs_.back()));
    held += lengths_.back();
  }
  WEFT_CHECK(held == tokens && !runs_.empty(), "{} of {} tokens are held", held, tokens);
}

SequenceLayout SequenceLayout::contiguous(int64_t tokens, int ranks) {
  std::vector<std::vector<Part>> runs;
  for (int rank = 0; rank < ranks; ++rank) runs.push_back({part_of(tokens, ranks, rank)});
  return {tokens, std::move(runs)};
}

std::vector<Part> SequenceLayout::runs(int rank, Part among_own) const {
  std::vector<Part> some;
  int64_t at = 0;
  for (const Part& run : runs(rank)) {
    const int64_t begin = std::clamp<int64_t>(among_own.start - at, 0, run.length);
    const int64_t end =
        std::clamp<int64_t>(among_own.start + among_own.length - at, begin, run.length);
    append(some, {run.start + begin, end - begin});
    at += run.length;
  }
  return some;
}

int64_t SequenceLayout::find(int rank, int64_t token) const {
  int64_t before = 0;
  for (const Part& run : runs(rank)) {
    if (token >= run.start && token < run.start + run.length) return before + token - run.start;
    before += run.length;
  }
  return -1;
}

SequenceLayout SequenceLayout::grouped(int size) const {
  WEFT_CHECK(size >= 1 && ranks() % size == 0, "groups of {} of {} ranks", size, ranks());
  std::vector<std::vector<Part>> groups(static_cast<size_t>(ranks() / size));
  for (int rank = 0; rank < ranks(); ++rank) {
    for (const Part& run : runs(rank)) append(groups[static_cast<size_t>(rank / size)], run);
  }
  return {tokens_, std::move(groups)};
}

SequenceLayout SequenceLayout::divided(int size) const {
  std::vector<std::vector<Part>> members;
  for (int rank = 0; rank < ranks(); ++rank) {
    for (int i = 0; i < size; ++i) {
      members.push_back(runs(rank, part_of(length(rank), size, i)));
    }
  }
  return {tokens_, std::move(members)};
}

}  // namespace weft::parallel
