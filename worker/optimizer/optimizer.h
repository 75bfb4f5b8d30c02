// AdamW: Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov and Hutter 2019), in the
// arithmetic of torch.optim.AdamW.
//
//   p -= rate * decay * p                        where info.decay
//   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   p -= rate / (1 - b1^n) * m / (sqrt(v) / sqrt(1 - b2^n) + epsilon)
// where n counts the updates of p, this one included.
//
// Masters and moments lie in flat buffers, fp32; what the forward pass computes with is the master
// itself, in bf16 one of the halves that it is kept in (kernels/cpu/singles.h), in fp16 its
// rounding; of what a half type would not do for (ParameterInfo::keep_fp32) the master. Gradients
// stay where the backward pass put them: a flat buffer of theirs would cost a copy of each and
// could not lend its memory to activations.
//
// The state may be shared out among the ranks that hold the same parameters (ZeRO, Rajbhandari et
// al. 2020): a rank then has masters and moments of its part of each bucket (buckets.h) only, and
// after an update the values' buckets are gathered, where somebody asks for them unit by unit
// (defer, value_gate.h) beside the next forward pass. At level 3 the values of a trunk are not kept
// whole either: whoever uses them gathers their bucket (unit_gate.h).
//
// What is frozen (ParameterInfo::trained) has no moments and no master beside its value. Only level
// 3 shares it out, as what it is: parameters.
//
// Thread safety: the rank's compute thread; with shared state every call is a collective over
// Axis::kReplica. Ownership: owns masters and moments; the parameters' handles are rebound to them.
// Invariants: 1. a parameter without a gradient is left as it is and its count of updates stands
// still (the head of another task). 2. masters and moments are fp32; whole, they have the shard's
// shape, shared out [own.length]. 3. a value of a half type is its master rounded, one that is kept
// in fp32 its master, after each step and publish(); of bf16 the own part is that at any time. 4.
// the master of what is frozen is its value.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/cpu/singles.h"
#include "worker/optimizer/buckets.h"
#include "worker/optimizer/gradients.h"
#include "worker/optimizer/table_rows.h"
#include "worker/parallel/rank.h"

namespace weft {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;
};

// What the ranks of Axis::kReplica share out. 0: nothing; 1: the optimizer's state; 2: gradients
// too; 3: the trunk's parameters too. One replica: always 0.
struct ZeroOptions {
  int level = 0;
  int64_t bucket_bytes = kBucketBytes;
};

class AdamW {
 public:
  // The parameters' values, fp32, become the masters; from then on they are of dtype `values`
  // (fp32 or a half type, which leaves those in fp32 that are to be kept so). Moments start at 0.
  // At level 3, parameters of units >= 0 become without memory (without_memory). Above level 0,
  // values are right after publish() only.
  AdamW(Rank& rank, std::vector<Parameter> parameters, AdamWOptions options,
        DType values = DType::kF32, ZeroOptions zero = {});

  // One update from the gradients times `gradient_scale` (the clipping factor), which it clears.
  void step(double learning_rate, double gradient_scale = 1.0);
  // The same from those of a reducer over the same parameters and buckets.
  void step(GradientReducer& gradients, double learning_rate, double gradient_scale);

  // State of parameters()[i], to be saved and restored in place.
  struct State {
    Singles master;
    Tensor first_moment, second_moment;  // empty of what is frozen
    std::optional<Part> own;             // shared out: which elements of the shard these are
    int64_t updates = 0;
  };
  std::vector<State>& states() { return states_; }
  std::vector<Parameter>& parameters() { return parameters_; }
  const Buckets& buckets() const { return buckets_; }
  int zero_level() const { return level_; }
  DType values_dtype() const { return values_; }
  // The values follow masters that were written to.
  void publish();

  // Levels 1 and 2: step() returns before the values of units >= 0 have followed. Nobody uses those
  // of a unit until it is finished, and every replica starts and finishes the same units in the
  // same order. looked_up: how many tokens all replicas have in the first micro-batches of a step;
  // tables of which so few rows go ahead (rows_go_ahead) come behind all units. 0: none do, as on
  // a GPU, where each row's copy is a launch of its own.
  void defer(int64_t looked_up = 0);
  // The unit's values are on their way, what has not changed aside; those of all units.
  void start_values(int64_t unit);
  void start_values();
  // They are there; of a block those that its attention uses, where it is known which others are
  // used behind it (ParameterInfo::behind_attention).
  void finish_values(int64_t unit);
  void finish_attention(int64_t unit);
  void finish_values();
  // The same of these tokens' rows (any order, the same on every replica) of the tables that come
  // last, and behind them of all but those tables.
  void start_rows(std::span<const int64_t> ids);
  // These rows and what else of the unit is not a table that comes last are there; of such a table
  // nobody uses other rows, and its values are started after that. False: nothing was done, as no
  // rows are on their way. ids: int64.
  bool finish_rows(int64_t unit, const Tensor& ids);

  // Level 3: starts gathering the values of a bucket into `flat`, [its elements].
  Pending gather(size_t bucket, const Tensor& flat) const;
  bool gathers(size_t bucket) const { return level_ == 3 && buckets_.all()[bucket].unit >= 0; }
  // Every rank has all of it, as nothing of it changes.
  bool keeps(size_t bucket) const { return !buckets_.all()[bucket].trained && !gathers(bucket); }

 private:
  struct Update;  // what one step does to one parameter
  class Step;     // of several
  void keep_whole(const std::vector<Tensor>& old_values);
  void share_out(const std::vector<Tensor>& old_values);
  void keep(size_t parameter, Tensor& old_value);
  Update update_of(size_t index, const Tensor& gradient, double rate, double gradient_scale);
  void apply_all(std::span<const Update> updates) const;
  void order_buckets(int64_t looked_up);
  bool behind_attention(size_t bucket) const;  // all of it
  bool comes_last(size_t place) const { return place >= order_.size() - tables_; }
  void round_own(size_t index, const Tensor& flat) const;
  Pending gather_own(size_t bucket, const Tensor& flat) const;
  void start_bucket(size_t bucket);

  Rank& rank_;
  Communicator& replicas_;
  std::vector<Parameter> parameters_;
  const AdamWOptions options_;
  const DType values_;
  const int level_;
  Buckets buckets_;
  std::vector<State> states_;
  // By bucket, where the state is shared out: of the masters of the own part the numbers, which in
  // bf16 are the values; and the values of the whole.
  std::vector<Tensor> own_numbers_, whole_values_;
  bool deferred_ = false;
  // The buckets in the order in which values travel, that of the forward pass; the last of them are
  // the tables of which rows go ahead.
  std::vector<size_t> order_;
  size_t tables_ = 0;
  std::vector<char> changed_;    // by bucket: the values have not been started since
  std::vector<Pending> coming_;  // by bucket
  std::vector<TableRows> rows_;  // of tables whose values have not been started
};

// The parameters' values in this precision, without masters: for a forward and backward pass alone.
void round_parameters(Rank& rank, std::span<Parameter> parameters, DType dtype);

}  // namespace weft
