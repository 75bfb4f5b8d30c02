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

// Those of rank `tensor_index` of the tensor axis, in the optimizer's order: the trunk's, then each
// task's head. `spec` is finished.
std::vector<BucketItem> shards_of(const ModelFamily& family, const ModelConfig& config,
                                  const proto::JobSpec& spec, int tensor_index);

// Whether a task of the job has the loss over the vocabulary.
bool models_language(const proto::JobSpec& spec);

}  // namespace weft
