// ZeRO's levels 1 and 2: the forward pass waits for what it needs of the last update's values,
// while the others are on their way (AdamW::defer): all of them, or, where more is sent in the
// forward pass, which would wait behind them, the next unit's.
//
// Of a table that tokens look up by their ids the forward pass begins with a few rows, and uses the
// rest at its end (tied logits) or not at all. Where nothing else is sent meanwhile, those rows go
// first, behind what the first block's attention uses, and the table last. A block's attention then
// waits for what it uses only.
//
// Thread safety: the rank's compute thread; begin and open are collectives over Axis::kReplica.
// Ownership: refers to the optimizer.
#pragma once

#include <optional>
#include <span>

#include "worker/models/model.h"
#include "worker/optimizer/optimizer.h"

namespace weft {

class ValueGate final : public ParameterGate {
 public:
  // alone: nothing else is sent in the forward pass. looked_up: as AdamW::defer takes it.
  ValueGate(AdamW& optimizer, bool alone, int64_t looked_up = 0)
      : optimizer_(optimizer), alone_(alone) {
    optimizer.defer(alone ? looked_up : 0);
  }

  // Before the first forward pass of a step; ids: the tokens of all replicas' first micro-batches.
  void begin(std::span<const int64_t> ids) {
    if (alone_) optimizer_.start_rows(ids);
  }

  void open(int64_t unit, std::optional<int64_t> next) override {
    if (alone_) optimizer_.start_values();
    optimizer_.finish_values(unit);
    if (next) optimizer_.start_values(*next);
  }
  void open_rows(int64_t unit, const Tensor& ids, std::optional<int64_t> next) override {
    if (!optimizer_.finish_rows(unit, ids)) open(unit, next);
  }
  void open_attention(int64_t unit, std::optional<int64_t> next) override {
    if (!alone_) return open(unit, next);
    optimizer_.start_values();
    optimizer_.finish_attention(unit);
  }
  void open_rest(int64_t unit) override {
    if (alone_) optimizer_.finish_values(unit);
  }
  bool closes() const override { return false; }

 private:
  AdamW& optimizer_;
  const bool alone_;
};

}  // namespace weft
