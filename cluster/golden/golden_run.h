// Runs the cases of `weft-golden` one by one and prints a line for each.
// Thread safety: one thread.
#pragma once

#include <ostream>

#include "cluster/golden/golden_options.h"
#include "worker/golden/golden.h"

namespace weft {

// 0: every case within its bars; 1: one is not, or could not be run. Reports go to `out`, errors to
// `errors`.
int run_golden(const GoldenOptions& options, std::ostream& out, std::ostream& errors);

// A case's line; `all`: every deviation too.
void print_report(std::ostream& out, const golden::Report& report, bool all);

}  // namespace weft
