// Whether the bytes of a job's step can be counted: everything that worker/admission and
// worker/planner count of it, on any mesh, is below 2^63.
//
// Thread safety: pure functions.
#pragma once

#include "proto/base/status.h"
#include "worker/models/model.h"

namespace weft::proto {
class JobSpec;
}

namespace weft {

// `spec` is finished. Error: names training.batch_size, or training.sequence_length where one row
// is too much, with the most that it may be for this model.
Status check_sizes(const proto::JobSpec& spec, const ModelConfig& config);

}  // namespace weft
