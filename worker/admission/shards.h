// The parameters of a job as one rank holds them, before anything is started.
//
// Thread safety: pure functions.
#pragma once

#include <vector>

#include "worker/models/model.h"
#include "worker/optimizer/buckets.h"

namespace weft::proto {
class JobSpec;
}

namespace weft {

struct ShardSize {
  int64_t unit = 0, elements = 0;  // ParameterInfo::unit; of this rank's part
  bool whole = false;              // every rank of the tensor axis holds all of it
  bool matrix = false;             // two dimensions or more
  LookedUp looked_up = LookedUp::kNever;
  bool joined = false;       // BucketItem::joined
  int copy = 0, copies = 1;  // as Shard's
};

// Those of rank `tensor_index` of the tensor axis, in the optimizer's order: the trunk's, then each
// task's head. `spec` is finished.
std::vector<ShardSize> shards_of(const ModelFamily& family, const ModelConfig& config,
                                 const proto::JobSpec& spec, int tensor_index);

std::vector<BucketItem> bucket_items(std::span<const ShardSize> shards);

// Whether a task of the job has the loss over the vocabulary.
bool models_language(const proto::JobSpec& spec);

}  // namespace weft
