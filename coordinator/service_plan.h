// The planner over the nodes that a coordinator knows.
// Thread safety: pure functions.
#pragma once

#include <string>
#include <vector>

#include "proto/base/status.h"
#include "proto/job.pb.h"
#include "proto/node.pb.h"
#include "worker/admission/check_model.h"
#include "worker/planner/planner.h"

namespace weft {

// `spec` is finished. Nodes that answer, or all if too few do. Error: no node is known and
// resources.slots does not say how many ranks there shall be; the nodes could never hold what
// resources asks for.
Result<proto::JobPlan> plan_on(const std::vector<proto::NodeInfo>& nodes,
                               const AdmittedModel& model, const proto::JobSpec& spec);

// The rule of the error of a plan that chose nothing.
std::string nothing_fits(const proto::JobPlan& plan);

}  // namespace weft
