// One suite of collectives for every transport. Each case is run by all ranks at once and uses
// gtest's expectations, which any thread may fail.
#pragma once

#include <span>

#include "worker/parallel/communicator.h"

namespace weft::testing {

struct CollectiveCase {
  const char* name;
  void (*run)(Communicator& comm, Allocator& allocator);
  bool orders_nan = false;  // asks for maxima and minima that a NaN wins; NCCL's lose it
};

std::span<const CollectiveCase> collective_cases();

}  // namespace weft::testing
