// From a placed job to the launch record that its nodes get.
// Thread safety: pure but for reading the store.
#pragma once

#include <map>
#include <string>

#include "coordinator/store/job_store.h"
#include "proto/base/status.h"
#include "proto/launch.pb.h"

namespace weft {

// Ranks are numbered node by node in the order of the placement; the first node is the head. A
// rank's threads: resources.threads_per_slot, else the node's cores divided by its slots; its
// memory likewise (memory_of_slot). The
// secret is made from `key` and the attempt, so that a coordinator that was restarted makes the
// same again. Errors: kNotFound names the object or checkpoint that is gone; kUnavailable a node
// that is unknown.
Result<proto::LaunchRecord> make_launch_record(const JobStore& store, const proto::Job& job,
                                               const std::map<std::string, proto::NodeInfo>& nodes,
                                               const std::string& key);

// The node of a rank in this placement; empty: no such rank.
std::string node_of_rank(const proto::Placement& placement, int32_t rank, int32_t* slot = nullptr);

}  // namespace weft
