// Payload bytes that a rank sends in a step, axis by axis, before anything is started: the formulas
// that docs/PERFORMANCE.md derives.
//
// Counted: one training step, without evaluation and the few numbers that all ranks agree on after
// it. Rows count as whole and as one document each; packed documents send less over the sequence
// axis, rows of a classification that are shorter than training.sequence_length less over all but
// the replicas. A topology-invariant job sends other bytes (blocked_traffic.h).
//
// Thread safety: pure functions. Exact to the byte where the sizes divide evenly (tests hold the
// communicators' counters to it); else rounded as parts are.
#pragma once

#include <cstdint>
#include <span>

#include "worker/admission/shards.h"
#include "worker/parallel/head_parts.h"

namespace weft {

// Of one axis. A message is one exchange with one other rank, sent and received at once.
struct AxisTraffic {
  int64_t bytes = 0, messages = 0;
  AxisTraffic& operator+=(const AxisTraffic& other);
  AxisTraffic& operator-=(const AxisTraffic& other);
  AxisTraffic operator+(const AxisTraffic& other) const {
    return {bytes + other.bytes, messages + other.messages};
  }
  AxisTraffic operator*(int64_t times) const { return {bytes * times, messages * times}; }
};

// ---- one collective of a rank, `whole` elements of `width` bytes, p ranks
// ------------------------
AxisTraffic gather_traffic(int64_t whole, int64_t width, int ranks, int rank);   // all-gather
AxisTraffic scatter_traffic(int64_t whole, int64_t width, int ranks, int rank);  // reduce-scatter
AxisTraffic reduce_traffic(int64_t whole, int64_t width, int ranks, int rank);   // all-reduce

// ---- one layer's attention over the sequence axis
// ------------------------------------------------
struct AttentionSizes {
  int64_t rows = 0, tokens = 0;      // B; T, of a whole row
  int64_t own_tokens = 0;            // of this rank
  int64_t heads = 0, key_heads = 0;  // that every rank of the axis has before any exchange
  int64_t features = 0, values = 0;  // of a head of queries and keys; of values
  int64_t element = 4;               // bytes
  bool causal = false;               // with the zigzag layout
  // Where tokens see so far back only: those of this layer, and those of most, whose cost the
  // layout evens out (parallel/sequence_balance.h); -1: all.
  int64_t window_left = -1, balanced_window_left = -1;
  // Where keys and values are of another row, a source: its tokens, and those of this rank.
  int64_t source = 0, own_source = 0;
  int64_t keys() const { return source > 0 ? source : tokens; }
  int64_t own_keys() const { return source > 0 ? own_source : own_tokens; }
};
struct AttentionTraffic {
  AxisTraffic forward, backward;
};
// A ring of p ranks, each of which has all heads.
AttentionTraffic ring_traffic(const AttentionSizes& sizes, int ranks, int rank);
// An exchange of heads among ranks that have these, as rank `rank` of them. terms: gradients of
// heads of keys are still to be summed, even those of one rank.
AttentionTraffic exchange_traffic(const AttentionSizes& sizes,
                                  std::span<const parallel::HeadParts> heads, int rank,
                                  bool terms = false);
// Rank `rank` of rings of groups of `ulysses` that exchange heads.
AttentionTraffic sequence_traffic(const AttentionSizes& sizes, int ranks, int ulysses, int rank);

// ---- gradients, state and parameters of the ranks that hold the same ones
// -------------------------
struct ReplicaSizes {
  int replicas = 1, zero = 0;
  int64_t rounds = 1;             // micro-batches of the rank that has most
  DType precision = DType::kF32;  // of the values
  bool tied_logits = false;       // the loss uses the embedding again
  TableUse tables;
  int64_t width = 0;   // of a row of those
  int64_t tokens = 0;  // that this rank looks up in the rounds that are sent
  int64_t ahead = 0;   // tokens_ahead
  bool alone = false;  // nothing but values is sent in the forward pass
};
// shards: whose buckets these are (bucket_items); empty: each bucket stands for itself.
AxisTraffic replica_traffic(const Buckets& buckets, const ReplicaSizes& sizes,
                            std::span<const ShardSize> shards = {});
// Of that the values that forward passes wait for (value_gate.h, unit_gate.h), levels 1 to 3: those
// that a pass begins with, beside which nothing computes, and heads'; and those that travel while
// the block before theirs computes, or the first block's attention: at levels 1 and 2, alone, what
// is used behind that.
struct ValueTraffic {
  AxisTraffic first, later;
};
ValueTraffic forward_values(const Buckets& buckets, const ReplicaSizes& sizes,
                            std::span<const ShardSize> shards);

// ---- a whole step of a job
// ------------------------------------------------------------------------
struct StepTraffic {
  AxisTraffic tensor, sequence, replica;
  ValueTraffic values;  // of replica; not told apart in a topology-invariant step
  // Of `replica`: rows of tables that go ahead (tokens_ahead), as if no token were there twice and
  // every replica had as many of the rows; what it really is depends on the data.
  AxisTraffic rows_ahead;
  int64_t bytes() const { return tensor.bytes + sequence.bytes + replica.bytes; }
};
struct MeshPlace {
  int data = 0, sequence = 0, tensor = 0;
};
// `spec` is finished; of several tasks the step of a language model, if there is one. `shards` are
// those of place.tensor.
StepTraffic step_traffic(const ModelConfig& config, const proto::JobSpec& spec,
                         std::span<const ShardSize> shards, const MeshPlace& place);

// Of a step of a language model, or not. fp16 looks rows up in fp32 copies, of which none are sent.
TableUse table_use(const ModelConfig& config, const proto::JobSpec& spec, bool language_model);

// The tokens of all replicas' first micro-batches, of which rows of a table may go ahead of it
// (AdamW::defer). 0: none do, for values do not follow the update (not level 1 or 2 of ZeRO, or
// topology-invariant training), or a tensor or sequence axis sends in the forward pass, too, or a
// GPU computes, or it is not known what is looked up (table_use).
int64_t tokens_ahead(const ModelConfig& config, const proto::JobSpec& spec);

// How many ranks of the sequence axis exchange heads: as parallel.sequence_attention says, or what
// sends least.
int ulysses_degree(const ModelConfig& config, const proto::JobSpec& spec);

}  // namespace weft
