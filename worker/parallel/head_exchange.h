// The all-to-all between the two ways in which a tensor [B, N, T, D] of an attention is spread over
// an axis (Jacobs et al. 2023): by tokens, every rank with all heads of some tokens, and by heads,
// every rank with all tokens of some heads.
//
// A rank sends B * D * (its tokens) * (the others' heads) elements one way and B * D * (its heads)
// * (the others' tokens) the other.
//
// Thread safety and ownership: as collective_ops.h. Nothing is recorded.
#pragma once

#include <vector>

#include "kernels/autograd/context.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/mesh.h"

namespace weft::parallel {

struct HeadExchange {
  Communicator& comm;
  std::vector<int64_t> tokens;  // of each rank, in rank order
  std::vector<Part> heads;      // of each rank, starts ascending; neighbours may share a head
  int64_t all_heads = 0;

  // x [B, all heads, this rank's tokens, D] -> [B, this rank's heads, all tokens, D].
  Tensor to_heads(Context& cx, const Tensor& x) const;
  // [B, this rank's heads, all tokens, D] -> [B, all heads, this rank's tokens, D], in memory
  // [B, tokens, heads, D]. Terms of a head that several ranks hold are added up in the tree over
  // the ranks (tree_sum.h), in which the others have none.
  Tensor to_tokens(Context& cx, const Tensor& x) const;

 private:
  const Part& own_heads() const { return heads[static_cast<size_t>(comm.rank())]; }
  int64_t own_tokens() const { return tokens[static_cast<size_t>(comm.rank())]; }
};

}  // namespace weft::parallel
