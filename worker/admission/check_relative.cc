#include "worker/admission/check_relative.h"

#include "proto/job.pb.h"
#include "proto/json/job_rules.h"

namespace weft {

Status check_relative(const proto::JobSpec& spec, const ModelConfig& config) {
  if (!config.relative) return {};
  const std::string with = " with " + config.family;
  if (spec.has_adapter()) {
    return Status::invalid(
        "adapter", "", "must be left out" + with + ", whose heads have no linear maps to adapt");
  }
  const bool in_blocks = spec.training().reproducible() == proto::REPRODUCIBLE_TOPOLOGY;
  if (spec.parallel().sequence() > 1 && !in_blocks) {
    return Status::invalid("parallel.sequence", std::to_string(spec.parallel().sequence()),
                           "must be 1" + with + ": a rank needs all distances of a row");
  }
  if (in_blocks && permuted_tokens(spec) > 0) {
    return Status::invalid("training.reproducible", "topology",
                           "must be mesh or none for permutation_lm, whose predictions are not cut "
                           "into blocks");
  }
  return {};
}

}  // namespace weft
