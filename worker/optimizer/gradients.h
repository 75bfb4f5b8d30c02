// Gradients between the backward pass and the update: summed over the ranks that hold the same
// shard, measured, cleared.
//
// Thread safety: the rank's compute thread; reduce and norm are collectives, called by all ranks
// with the same parameters.
#pragma once

#include <span>

#include "worker/models/parameter.h"
#include "worker/parallel/rank.h"

namespace weft {

// Sums every gradient over Axis::kReplica (and, where info.partial_over_tensor, over
// Axis::kTensor), in flat buckets. Afterwards each parameter has a gradient, zeros where no rank
// had one. Size one: only absent gradients become zeros.
void reduce_gradients(Rank& rank, std::span<Parameter> parameters);

// Euclidean norm of all gradients of the whole model: squares are summed in double, shards over
// Axis::kTensor, a replicated parameter once. The same number on every rank.
double global_gradient_norm(Rank& rank, std::span<Parameter> parameters);

// min(1, max / (norm + 1e-6)), as torch's clip_grad_norm_; 1 where max is 0 (no clipping).
double clip_factor(double norm, double norm_max);

void clear_gradients(std::span<Parameter> parameters);

}  // namespace weft
