// What set_up does with the tensors of a checkpoint's state beyond loading them.
//
// Thread safety: the rank's compute thread. Ownership: writes into the training's masters.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>

#include "worker/setup.h"

namespace weft {

// Draws the parameters that are `wanted`, each from its initializer.
void initialize(ThreadPool& pool, Training& training, uint64_t seed,
                const std::function<bool(const ParameterInfo&)>& wanted);

// Draws those of the trunk, adapters aside, that are not among the `given`: a classifier's files
// may lack the head of tokens. Error: a task reads it and nobody trains it (kFrozenHeadRule).
Status initialize_absent(ThreadPool& pool, const proto::JobSpec& spec, Training& training,
                         const std::set<std::string>& given);

// DoRA's magnitudes: the norms of what the adapted weights, which are loaded already, map to each
// output. A collective. Error: a norm is 0, which DoRA would divide by.
Status initialize_magnitudes(Rank& rank, Training& training);

// The adapter of the checkpoint that the training starts from, if it has one, becomes part of the
// weights that it adapts, which are loaded already: in half precision these were rounded, and the
// sums are rounded again, so an export of that checkpoint may differ in last bits.
Status merge_adapter(const proto::CheckpointManifest& manifest, Progress& progress,
                     Training& training);

}  // namespace weft
