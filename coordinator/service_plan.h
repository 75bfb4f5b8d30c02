// The planner over the nodes that a coordinator knows.
// Thread safety: pure functions.
#pragma once

#include <string>
#include <vector>

#include "coordinator/scheduler/fit.h"
#include "proto/base/status.h"
#include "proto/job.pb.h"
#include "proto/node.pb.h"
#include "worker/admission/check_model.h"
#include "worker/planner/planner.h"

namespace weft {

// Of a job as it was written, before it is finished: what says how many ranks it has.
GangSource source_of(const proto::JobSpec& written);

// `spec` is finished. Nodes that answer, or all if too few do. Where nothing fits, the reason says
// what would. Error: no node is known and resources.slots does not say how many ranks there shall
// be; the nodes could never hold what resources asks for. rows_at_once: as PlanRequirements has it.
Result<proto::JobPlan> plan_on(const std::vector<proto::NodeInfo>& nodes,
                               const AdmittedModel& model, const proto::JobSpec& spec,
                               const GangSource& source, int64_t rows_at_once = 0);

// What would let a job fit whose own mesh fits none of these nodes (worker/planner/advice.h).
std::string advice_on(const std::vector<proto::NodeInfo>& nodes, const AdmittedModel& model,
                      const proto::JobSpec& spec);

}  // namespace weft
