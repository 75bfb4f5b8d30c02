// Whether a job of a model whose scores have terms by distance and segment
// (ModelConfig::relative) asks for what these are not computed with.
//
// Thread safety: pure functions.
#pragma once

#include "proto/base/status.h"
#include "worker/models/model.h"

namespace weft::proto {
class JobSpec;
}

namespace weft {

// `spec` is finished. OK for every job of another model. Error: names the field, the value and the
// rule.
Status check_relative(const proto::JobSpec& spec, const ModelConfig& config);

}  // namespace weft
