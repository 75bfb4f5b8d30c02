// Payload bytes that a rank of topology-invariant training sends in a step
// (worker/parallel/blocked.h, tree_sum.h); of docs/PERFORMANCE.md, What topology-invariant training
// costs.
//
// Counted and rounded as in traffic.h. Gradients of what every rank of the tensor axis holds are
// summed over the world, and count with the replicas.
//
// Thread safety: pure functions.
#pragma once

#include "worker/admission/traffic.h"

namespace weft {

// Of those that compute a row's tokens together: they exchange heads. Divides the replicas.
int ranks_in_row(const proto::JobSpec& spec);

// As step_traffic. `spec` is finished and passes check_blocks.
StepTraffic blocked_traffic(const ModelConfig& config, const proto::JobSpec& spec,
                            std::span<const ShardSize> shards, const MeshPlace& place);

}  // namespace weft
