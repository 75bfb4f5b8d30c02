// Collectives that the ranks of a group call differently, for every transport of host memory.
#pragma once

#include <functional>
#include <memory>

#include "cluster/comm/watched_communicator.h"

namespace weft::testing {

// Runs every case on a communicator of its own, which `fresh` makes (a collective), on all ranks at
// once. One with less than two ranks has nothing to compare.
void expect_mismatches_told(const std::function<std::unique_ptr<Communicator>()>& fresh);

}  // namespace weft::testing
