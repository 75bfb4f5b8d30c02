#include "worker/admission/check_relative.h"

#include "proto/job.pb.h"

namespace weft {

Status check_relative(const proto::JobSpec& spec, const ModelConfig& config) {
  if (!config.relative) return {};
  const std::string with = " with " + config.family;
  if (spec.has_adapter()) {
    return Status::invalid(
        "adapter", "", "must be left out" + with + ", whose heads have no linear maps to adapt");
  }
  if (spec.parallel().sequence() > 1) {
    return Status::invalid("parallel.sequence", std::to_string(spec.parallel().sequence()),
                           "must be 1" + with + ": a rank needs all distances of a row");
  }
  if (spec.training().reproducible() == proto::REPRODUCIBLE_TOPOLOGY) {
    return Status::invalid(
        "training.reproducible", "topology",
        "must be mesh or none" + with + ", whose terms by distance are not cut into blocks");
  }
  if (spec.resources().device() == proto::COMPUTE_DEVICE_GPU) {
    return Status::invalid("resources.device", "gpu",
                           "must be cpu" + with + ", which runs on CPUs only");
  }
  return {};
}

}  // namespace weft
