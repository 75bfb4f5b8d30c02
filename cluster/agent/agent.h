// The agent of one node: its line to the coordinator, the lease, the attempts on this node, the
// socket of their ranks.
//
// Thread safety: run() is the agent's thread. Ownership: owns everything below it.
// Invariants: 1. a lease counts from the sending of the heartbeat that it answers, on
// CLOCK_BOOTTIME.
// 2. an attempt is listed to the coordinator until the coordinator revokes it, also once it is
// over. 3. SIGHUP ends the agent and leaves its shepherds; SIGTERM and SIGINT end their attempts
// first.
#pragma once

#include "cluster/agent/options.h"
#include "proto/base/status.h"

namespace weft {

// Until a signal ends it. An error is told before anything runs.
Status run_agent(const AgentOptions& options);

}  // namespace weft
