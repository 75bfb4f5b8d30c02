#include "coordinator/launcher/launch_record.h"

#include <algorithm>
#include <set>

#include "coordinator/scheduler/snapshot_parts.h"
#include "proto/base/hash.h"
#include "worker/admission/memory.h"

namespace weft {
namespace {

Status add_objects(const JobStore& store, const proto::JobSpec& spec, proto::LaunchRecord& record) {
  std::set<std::string> ids{spec.model().from(), spec.tokenizer().from()};
  for (const proto::TaskSpec& task : spec.tasks()) {
    ids.insert(task.data().train());
    ids.insert(task.data().validation());
  }
  for (const std::string& id : ids) {
    if (!id.starts_with("obj-")) continue;
    WEFT_ASSIGN_OR_RETURN(*record.add_objects(), store.object(id));
  }
  if (spec.model().from().starts_with("ckpt-")) {
    WEFT_ASSIGN_OR_RETURN(*record.mutable_base(), store.checkpoint(spec.model().from()));
  }
  return {};
}

}  // namespace

Result<proto::LaunchRecord> make_launch_record(const JobStore& store, const proto::Job& job,
                                               const std::map<std::string, proto::NodeInfo>& nodes,
                                               const std::string& key) {
  proto::LaunchRecord record;
  record.set_job(job.id());
  record.set_attempt(job.attempt());
  record.set_secret(
      to_hex(hmac_sha256(key, "attempt " + job.id() + "/" + std::to_string(job.attempt()))));
  *record.mutable_spec() = job.spec();
  for (const auto& placed : job.placement().nodes()) {
    auto it = nodes.find(placed.name());
    if (it == nodes.end()) return fail(Code::kUnavailable, "no node " + placed.name());
    const proto::NodeInfo& info = it->second;
    proto::LaunchNode& node = *record.add_nodes();
    node.set_name(info.name());
    node.set_address(info.address());
    node.set_subnet_cidr(info.subnet_cidr());
    node.set_cores(info.cores());
    node.set_slots(info.slots());
    const int threads = threads_of(info, job.spec().resources());
    for (int i = 0; i < placed.slots_size(); ++i) {
      proto::LaunchRank& rank = *record.add_ranks();
      rank.set_rank(record.ranks_size() - 1);
      rank.set_node(info.name());
      rank.set_slot(placed.slots(i));
      rank.set_local_rank(i);
      rank.set_threads(threads);
      rank.set_memory_bytes(memory_of_slot(info.memory_bytes(), info.slots()));
    }
  }
  WEFT_RETURN_IF_ERROR(add_objects(store, job.spec(), record));
  if (!job.checkpoint().empty()) {
    WEFT_ASSIGN_OR_RETURN(*record.mutable_resume(), store.checkpoint(job.checkpoint()));
  }
  return record;
}

std::string node_of_rank(const proto::Placement& placement, int32_t rank, int32_t* slot) {
  for (const auto& node : placement.nodes()) {
    if (rank >= 0 && rank < node.slots_size()) {
      if (slot) *slot = node.slots(rank);
      return node.name();
    }
    rank -= node.slots_size();
  }
  return "";
}

}  // namespace weft
