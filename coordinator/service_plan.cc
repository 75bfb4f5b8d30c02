#include "coordinator/service_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "coordinator/launcher/snapshot_parts.h"
#include "coordinator/scheduler/fit.h"
#include "worker/admission/memory.h"

namespace weft {
namespace {

constexpr int kEveryNumber = 32;  // up to so many slots each number is tried, then powers of two
constexpr int kSlotsMax = 65536;

HostSpeed speed_of(const proto::NodeInfo& node) {
  HostSpeed speed;
  const auto known = [](double measured, double& into) {
    if (measured > 0) into = measured;
  };
  known(node.flops_per_core(), speed.flops);
  known(node.half_flops_per_core(), speed.half_flops);
  known(node.copy_bytes_per_second(), speed.memory);
  known(node.link_bytes_per_second(), speed.link);
  return speed;
}

class Nodes {
 public:
  Nodes(std::vector<proto::NodeInfo> nodes, const proto::ResourceSpec& asked)
      : nodes_(std::move(nodes)), asked_(asked) {
    if (nodes_.empty()) {  // nothing is known: one node, as large as it has to be
      nodes_.emplace_back().set_slots(asked.slots());
      nodes_.back().set_cores(asked.slots());
    }
    for (const proto::NodeInfo& node : nodes_) {
      most_ = std::max(most_, memory_of_slot(node.memory_bytes(), node.slots()));
      known_.push_back(snapshot_of(node));
      groups_.push_back(known_.back().group());
    }
  }

  int slots() const {
    return std::accumulate(nodes_.begin(), nodes_.end(), 0,
                           [](int sum, const auto& node) { return sum + node.slots(); });
  }
  int64_t most_memory() const { return most_; }

  // As the scheduler would place them on empty nodes that have the memory.
  std::optional<std::vector<HostShare>> find(int slots, int64_t rank_bytes) const {
    std::vector<int> free;
    for (const proto::NodeInfo& node : nodes_) {
      const int64_t allowed = memory_of_slot(node.memory_bytes(), node.slots());
      // Of a GPU's memory nothing is known here.
      const bool too_large = node.gpus() == 0 && allowed > 0 && rank_bytes > allowed;
      free.push_back(too_large ? 0 : node.slots());
    }
    free = on_device(std::move(free), known_, wanted_gpu(asked_));
    const auto places = fit_reachable(free, groups_, slots, asked_.nodes());
    if (!places) return std::nullopt;
    // Nodes with a loopback address are one machine, whose cores they share.
    const bool one_machine = !known_[static_cast<size_t>(places->front().node)].loopback.empty();
    const int sharing = one_machine ? static_cast<int>(places->size()) : 1;
    std::vector<HostShare> hosts;
    for (const SlotCount& place : *places) {
      const proto::NodeInfo& node = nodes_[static_cast<size_t>(place.node)];
      const int threads = asked_.threads_per_slot();
      hosts.push_back(
          {.speed = speed_of(node),
           .cores = std::max(1, node.cores() / sharing),
           .threads = threads > 0 ? threads : std::max(1, node.cores() / std::max(1, node.slots())),
           .ranks = place.slots});
    }
    return hosts;
  }

 private:
  std::vector<proto::NodeInfo> nodes_;
  const proto::ResourceSpec& asked_;
  std::vector<SnapshotNode> known_;  // as nodes_
  std::vector<int> groups_;
  int64_t most_ = 0;
};

std::vector<int> slot_numbers(int most, const proto::ResourceSpec& asked) {
  if (asked.slots() > 0) return {asked.slots()};
  std::vector<int> numbers;
  for (int n = std::max(1, asked.nodes()); n <= most; n = n < kEveryNumber ? n + 1 : 2 * n) {
    numbers.push_back(n);
  }
  if (!numbers.empty() && numbers.back() < most) numbers.push_back(most);
  return numbers;
}

// Those that answer, if the job could run on them alone.
std::vector<proto::NodeInfo> nodes_to_use(const std::vector<proto::NodeInfo>& nodes,
                                          const proto::ResourceSpec& asked) {
  std::vector<proto::NodeInfo> ready;
  std::vector<SnapshotNode> known;
  for (const proto::NodeInfo& node : nodes) {
    if (node.state() != proto::NODE_STATE_READY) continue;
    ready.push_back(node);
    known.push_back(snapshot_of(node));
  }
  const int slots = asked.slots() > 0 ? asked.slots() : std::max(1, asked.nodes());
  if (ready.empty() || !check_feasible(known, slots, asked.nodes(), wanted_gpu(asked)).ok()) {
    return nodes;
  }
  return ready;
}

}  // namespace

Result<proto::JobPlan> plan_on(const std::vector<proto::NodeInfo>& nodes,
                               const AdmittedModel& model, const proto::JobSpec& spec) {
  const proto::ResourceSpec& asked = spec.resources();
  if (nodes.empty() && asked.slots() == 0) {
    return fail(Status::invalid("resources.slots", "0",
                                "must say how many ranks to plan for, as no node has joined yet"));
  }
  const Nodes usable(nodes_to_use(nodes, asked), asked);
  std::vector<SnapshotNode> known;
  for (const proto::NodeInfo& node : nodes) known.push_back(snapshot_of(node));
  const int least = asked.slots() > 0 ? asked.slots() : std::max(1, asked.nodes());
  WEFT_RETURN_IF_ERROR(check_feasible(known, least, asked.nodes(), wanted_gpu(asked)));
  return plan_job({*model.family, *model.config, spec,
                   slot_numbers(std::min(usable.slots(), kSlotsMax), asked), usable.most_memory(),
                   [&](int slots, int64_t bytes) { return usable.find(slots, bytes); }});
}

std::string nothing_fits(const proto::JobPlan& plan) {
  return fmt::format(
      "must have a mesh whose ranks fit: {}; {}", plan.reason(),
      "lower training.sequence_length or training.batch_size, or give it more nodes");
}

}  // namespace weft
