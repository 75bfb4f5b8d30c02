// Whether a job that trains topology-invariantly (worker/parallel/blocked.h) can be cut into its
// blocks.
//
// Thread safety: pure functions.
#pragma once

#include "proto/base/status.h"
#include "worker/models/model.h"

namespace weft::proto {
class JobSpec;
}

namespace weft {

// `spec` is finished. OK for every job that is not topology-invariant. Error: names the field, the
// value and the rule that the model or the batch breaks.
Status check_blocks(const proto::JobSpec& spec, const ModelConfig& config);

}  // namespace weft
