// Gradients between the backward pass and the update: summed over the ranks that hold the same
// shard (Axis::kReplica), in buckets that travel while the backward pass goes on, measured,
// cleared.
//
// Thread safety: the rank's compute thread; everything here is a collective, called by all ranks
// with the same parameters.
#pragma once

#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "kernels/autograd/tape.h"
#include "worker/optimizer/buckets.h"
#include "worker/parallel/rank.h"

namespace weft {

// Sums the gradients of one step after the other. begin(); then for each round of micro-batches
// arm(tape) before the backward pass and flush() after it; then finish(). A rank without rows in a
// round only flushes.
//
// Buckets are sent in their order, each as soon as its gradients and those of the buckets before it
// are complete. A table that tokens look rows up in (sent_as_rows) comes first, once it has all of
// its gradient but the rows of this round, right after the loss where the logits use it; where they
// do not, it is not sent. What rows the ranks have looked up they gather at the end of the backward
// pass, once for all tables, and add them to the sums in the order of the ranks. So that something
// is computed meanwhile, the first block's weight gradients whose sums are no more bytes than the
// rows (put_off) come after it, and are sent last. Level 0 sums whole
// buckets and gives each parameter its summed gradient; the levels above leave each rank the sum of
// its own parts (reduce-scatter), and the parameters' gradients are freed as their bucket is sent.
//
// Of a rank with blocks the gradients that the tape leaves are sums over all ranks already
// (complete_gradient): nothing is sent, the levels above 0 keep their parts, and every micro-batch
// is a round at every level.
//
// Invariants: 1. overlapping changes no bit: the same buckets are summed in the same order without
// it. 2. with sharded gradients (level 2 and up) at most kInFlight buckets are on their way.
class GradientReducer {
 public:
  GradientReducer(Rank& rank, std::span<const Parameter> parameters, const Buckets& buckets,
                  int zero, bool overlap = true);

  // Of a step that trains these parameters, frozen ones aside; gradients that nobody has count as
  // zeros.
  void begin(std::span<const Parameter> trained, const TableUse& use = {});
  // The next backward pass on `tape` completes this round's gradients.
  void arm(Tape& tape);
  // Sends what was not sent yet in this round. At level 0 and 1 the only round is the last
  // micro-batch; from level 2 on every micro-batch is one, so that no rank keeps whole gradients.
  void flush();
  // Waits for the sums.
  void finish();

  // After finish(): the sum of squares, in double, of this rank's share of all gradients; the
  // shares of all ranks of the world add up to the whole model's. Of a rank with blocks the sum is
  // exact in each of two parts (exact_squares.h), the second being squares_rest().
  double squares() const { return squares_; }
  double squares_rest() const { return squares_rest_; }
  // Whether all gradients of this rank alone, before any sum, were finite.
  bool finite() const { return finite_; }
  // Of level 1 and up: the summed gradient of what this rank owns of the parameter, [own.length];
  // an empty handle where the step does not train it.
  Tensor own_gradient(size_t parameter) const;
  // Whether every round is sent, not the last one only.
  bool every_round() const { return zero_ >= 2 || rank_.blocks > 0; }
  // Lets go of all gradients.
  void clear();

  static constexpr size_t kInFlight = 2;

 private:
  struct State {
    bool trained = false, launched = false;
    int64_t missing = 0;  // gradients that are not complete yet in this round
    Tensor flat, part;    // under way: the whole bucket, this rank's part of the sum
    Tensor sum;           // level 0: the whole bucket; above: this rank's part, over the rounds
    std::vector<Tensor> sums;  // level 0 of a rank with blocks: of each parameter, over the rounds
    Pending pending;
  };
  void start_round();
  void ready(const Tensor& leaf);
  void complete(size_t parameter);
  void launch_complete();
  void launch(size_t bucket);
  Tensor packed(const Bucket& bucket);
  void pack(const Bucket& bucket, const Tensor& flat);
  void check_finite(const Tensor& values);
  void take(size_t bucket);
  void keep(size_t bucket);
  void keep_part(size_t bucket);
  // A table of which rows are sent, with what this rank has looked up in this round.
  struct Table {
    size_t parameter = 0;
    std::vector<RowGradient> rows;
  };
  void add_tables(std::span<const Parameter> trained, const TableUse& use);
  std::vector<size_t> put_off(const TableUse& use) const;
  // What was looked up: ids [N], by table, and of all tables the rows, [N, H].
  struct LookedUpRows {
    std::vector<Tensor> ids;
    Tensor values;
  };
  // Tells the others how many rows this rank is going to have in this round.
  void announce_rows(int64_t count);
  LookedUpRows own_rows();
  void send_rows();
  void take_rows();
  void add_rows(const Table& table, const Tensor& ids, const Tensor& values);
  void measure();
  bool alone() const { return replicas_.size() == 1 && rank_.blocks == 0; }

  Rank& rank_;
  Communicator& replicas_;
  const std::vector<Parameter> parameters_;
  const Buckets& buckets_;
  const int zero_;
  const bool overlap_;
  std::unordered_map<uint64_t, size_t> index_of_;  // by the leaf's id
  std::vector<State> states_;                      // by bucket
  std::vector<char> complete_;                     // by parameter, in this round
  // The buckets that are sent, in that order, and among them kRows.
  std::vector<size_t> order_;
  size_t next_ = 0;           // of those, the next one
  std::vector<size_t> late_;  // the last ones of those: gradients that are put off
  std::vector<Table> tables_;
  Tensor row_counts_;  // of all ranks, [replicas], once announced_ is waited for
  Pending announced_;
  bool rows_complete_ = false;
  LookedUpRows all_rows_;  // under way
  Pending rows_pending_;
  std::vector<size_t> in_flight_;
  Tensor health_;  // of this rank's gradients so far: a double that is finite if they are
  bool finite_ = true;
  double squares_ = 0, squares_rest_ = 0;
};

// Of a rank with blocks: what an op's gradient of this parameter adds to it, summed over the ranks
// that it is a term of. A collective. `gradient` may be written to.
Tensor complete_gradient(Rank& rank, const ParameterInfo& info, const Tensor& gradient);

// GradientReducer in one call, without overlap, after the backward pass: afterwards each parameter
// has its gradient, zeros where no rank had one.
void reduce_gradients(Rank& rank, std::span<Parameter> parameters);

// Euclidean norm of all gradients of the whole model, after reduce_gradients: squares are summed in
// double, shards over Axis::kTensor, a replicated parameter once. The same number on every rank.
double global_gradient_norm(Rank& rank, std::span<Parameter> parameters);

// min(1, max / (norm + 1e-6)), as torch's clip_grad_norm_; 1 where max is 0 (no clipping).
double clip_factor(double norm, double norm_max);

void clear_gradients(std::span<const Parameter> parameters);

}  // namespace weft
