// Runs the cases of `weft-golden` one by one and prints a line for each.
// Thread safety: one thread.
#pragma once

#include <ostream>

#include "cluster/golden/golden_options.h"

namespace weft {

// 0: every case within its bars; 1: one is not, or could not be run. Reports go to `out`, errors to
// `errors`.
int run_golden(const GoldenOptions& options, std::ostream& out, std::ostream& errors);

}  // namespace weft
