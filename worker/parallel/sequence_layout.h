// Which tokens of a row each rank of the sequence axis holds.
//
// Thread safety and ownership: values. Invariants: 1. each token is held by exactly one rank. 2. a
// rank's tokens are runs in ascending order, none empty, no two adjacent; a rank may hold none.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/parallel/mesh.h"

namespace weft::parallel {

class SequenceLayout {
 public:
  // runs[r]: those of rank r.
  SequenceLayout(int64_t tokens, std::vector<std::vector<Part>> runs);
  // Rank r holds part_of(tokens, ranks, r).
  static SequenceLayout contiguous(int64_t tokens, int ranks);

  int64_t tokens() const { return tokens_; }
  int ranks() const { return static_cast<int>(runs_.size()); }
  const std::vector<Part>& runs(int rank) const { return runs_[static_cast<size_t>(rank)]; }
  int64_t length(int rank) const { return lengths_[static_cast<size_t>(rank)]; }
  // The runs of a rank's tokens [start, start + length), counted among its own.
  std::vector<Part> runs(int rank, Part among_own) const;
  // Of token `token` of the row among those of `rank`; -1 where another rank holds it.
  int64_t find(int rank, int64_t token) const;

  // `size` neighbours at a time as one rank, whose tokens are theirs in the order of ranks; that
  // has to be ascending.
  SequenceLayout grouped(int size) const;
  // The reverse: each rank's tokens in parts among `size` neighbours.
  SequenceLayout divided(int size) const;

 private:
  int64_t tokens_;
  std::vector<std::vector<Part>> runs_;
  std::vector<int64_t> lengths_;
};

// Tokens of runs, one behind the other.
int64_t total_length(const std::vector<Part>& runs);

}  // namespace weft::parallel
