// ZeRO-3's parameters: each rank keeps its part, and a unit (a block, or what lies before or after
// the blocks) is gathered when it is used and let go when the next one is.
//
// While a unit is at work the one that follows is on its way: the next higher in the forward pass,
// the next lower in the backward pass.
//
// Thread safety: the rank's compute thread; open is a collective over Axis::kReplica: every replica
// opens the same units in the same order. Ownership: refers to the optimizer, which owns the parts.
// Invariants: 1. at most two units are whole on a rank, the one on its way included. 2. a unit that
// is not open reads NaN.
#pragma once

#include <optional>
#include <vector>

#include "worker/models/model.h"
#include "worker/optimizer/optimizer.h"

namespace weft {

class UnitGate final : public ParameterGate {
 public:
  UnitGate(Rank& rank, AdamW& optimizer);

  void open(int64_t unit, std::optional<int64_t> next) override;
  bool closes() const override { return true; }
  // No unit is whole; what was on its way is dropped.
  void close();

 private:
  struct Gathered {
    int64_t unit = 0;
    std::vector<size_t> buckets;
    std::vector<Tensor> flats;
    std::vector<Pending> pending;
  };
  std::optional<Gathered> start(int64_t unit);
  void show(Gathered& gathered);
  void hide(Gathered& gathered);

  Rank& rank_;
  AdamW& optimizer_;
  std::optional<Gathered> open_, coming_;
};

}  // namespace weft
