// The coordinator from its options to its end: stores, supervisor, service, REST API.
//
// Thread safety: call it once, from the main thread, before any other thread exists (it blocks
// SIGTERM and SIGINT in all of them). Ownership: owns everything.
#pragma once

#include "coordinator/options.h"
#include "proto/base/status.h"

namespace weft {

// Serves until SIGTERM or SIGINT. Errors are told before anything is served: a folder that is
// missing, not writable or in use by another coordinator, a busy port.
Status run_coordinator(const CoordinatorOptions& options);

}  // namespace weft
