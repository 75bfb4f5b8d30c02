// Attention over a row whose tokens are spread along an axis (Liu et al. 2023): each rank keeps its
// queries, and keys and values come to it. Partial results are merged by their log-sum-exp; the
// backward pass sends keys and values again and their gradients back to their owners.
//
// At shift s a rank sends what the rank s places on can see of its own tokens and receives the like
// from s places back, in three pieces, which travel while those before them are computed on. In the
// backward pass half of the own keys come first, while the first pieces are on their way, and the
// other half last, while the last gradients are on theirs. What nobody sees is neither sent nor
// computed.
//
// Thread safety: the rank's compute thread; all ranks of the axis call the same functions together.
// Ownership: the communicator outlives it. Nothing is recorded.
// Invariants: 1. a rank holds at most two blocks of keys and values: its own, and three thirds of
// others', the piece that it computes on and two that are on their way; in the backward pass two
// thirds of gradients besides. 2. pieces are merged in the order of shifts 0, 1, ..., so results
// repeat bit for bit on the same axis. 3. of bf16 inputs, partial results and the gradients of keys
// and values are fp32, also on their way.
#pragma once

#include <vector>

#include "kernels/attention/attention.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/visible_tokens.h"

namespace weft::parallel {

class Ring {
 public:
  // Layouts: of the ranks of comm. parameters: of the whole (sequence_attention.h).
  Ring(Communicator& comm, SequenceLayout queries, SequenceLayout keys,
       const attention::Parameters& parameters, int64_t rows);

  // q [B, N, Tq, D], k [B, Nk, Tk, D], v [B, Nk, Tk, Dv], Tq and Tk tokens of this rank.
  attention::Partial forward(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v) const;
  // Complete gradients of this rank's q, k and v; of a table by distance the term of its queries.
  attention::BlockGrads backward(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                                 const Tensor& d_output, const Tensor& log_sum_exp,
                                 const Tensor& delta) const;

 private:
  // Of this rank, one piece of one shift.
  struct Trade {
    int to = 0, from = 0;
    std::vector<Part> sent;  // of its own keys
    std::vector<Part> received;
  };
  struct Journey;
  class Arrivals;
  struct Block {
    Tensor k, v;
  };
  void add_trades(int shift);
  const std::vector<Part>& own_keys() const { return keys_.runs(comm_.rank()); }
  int64_t own_key_tokens() const { return keys_.length(comm_.rank()); }
  // Parameters of this rank's queries and these keys.
  attention::Parameters parameters_for(Context& cx, const std::vector<Part>& keys) const;
  // x's tokens of these runs of this rank's keys, contiguous.
  Tensor packed(Context& cx, const Tensor& x, const std::vector<Part>& runs) const;
  Journey send_keys(Context& cx, const Tensor& x, const Trade& trade) const;
  Journey send_gradient(Context& cx, Tensor gradient, const Tensor& own_gradient,
                        const Trade& trade) const;
  // Adds what came home to this rank's gradient.
  void add_home(Context& cx, Journey journey, const Tensor& own_gradient) const;

  Communicator& comm_;
  const SequenceLayout queries_, keys_;
  const attention::Parameters parameters_;
  const VisibleTokens visible_;
  std::vector<Trade> trades_;  // in the order of shifts, the own block aside
};

}  // namespace weft::parallel
