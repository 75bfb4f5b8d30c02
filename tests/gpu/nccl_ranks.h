// Ranks that are processes of one machine and share one GPU, over NCCL for real: the suite of
// collectives, lost ranks, and stored trajectories. NCCL refuses two ranks on one GPU unless they
// call themselves different hosts (NCCL_HOSTID) and talk over the network, here the loopback
// interface; jobs never do that (cluster/comm/rank_gpu.h).
//
// Thread safety: one call a process, before anything in it has touched a GPU.
#pragma once

#include <span>

#include "tests/cluster/comm/collective_cases.h"

namespace weft::gpu {

// `weft-gpu collectives`: a line a case and the exit status, 0 where all passed. A rank that hangs,
// crashes or fails says in which case; the cases after it run in new processes.
int collectives(int argc, char** argv,
                std::span<const testing::CollectiveCase> cases = testing::collective_cases());

// `weft-gpu lost-rank`: what the other ranks hear of one that is killed, or never comes, while they
// wait for it in a collective.
int lost_rank(int argc, char** argv);

// `weft-gpu trajectory`: golden cases on a mesh of such ranks.
int trajectory(int argc, char** argv);

}  // namespace weft::gpu
