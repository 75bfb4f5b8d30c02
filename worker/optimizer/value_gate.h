// ZeRO's levels 1 and 2: the forward pass waits for what it needs of the last update's values,
// while the next unit's are on their way (AdamW::defer).
//
// Thread safety: the rank's compute thread; open is a collective over Axis::kReplica. Ownership:
// refers to the optimizer.
#pragma once

#include <optional>

#include "worker/models/model.h"
#include "worker/optimizer/optimizer.h"

namespace weft {

class ValueGate final : public ParameterGate {
 public:
  explicit ValueGate(AdamW& optimizer) : optimizer_(optimizer) { optimizer.defer(); }

  void open(int64_t unit, std::optional<int64_t> next) override {
    optimizer_.finish_values(unit);
    if (next) optimizer_.start_values(*next);
  }
  bool closes() const override { return false; }

 private:
  AdamW& optimizer_;
};

}  // namespace weft
