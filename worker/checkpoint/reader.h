// Loads a checkpoint's tensors into this rank's shards, whatever mesh wrote it. Only chunks that
// hold some of the shard are fetched, a few ahead of their use, so a rank never holds more than its
// shards and a few chunks.
//
// Thread safety: the rank's compute thread. Ownership: writes into the caller's tensors.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "worker/checkpoint/writer.h"

namespace weft::checkpoint {

// Called from several threads at once.
using FetchChunk = std::function<Result<std::string>(const std::string& hash)>;

// Fills every target that the manifest has; names of those that it lacks come back. Errors name the
// tensor: another shape, tiles that do not cover it (kCorruption), a chunk that cannot be had.
Result<std::vector<std::string>> load(const proto::CheckpointManifest& manifest,
                                      std::span<const StateTensor> targets,
                                      const FetchChunk& fetch);

}  // namespace weft::checkpoint
