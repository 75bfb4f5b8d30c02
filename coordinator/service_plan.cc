#include "coordinator/service_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "coordinator/scheduler/fit.h"
#include "coordinator/scheduler/snapshot_parts.h"
#include "worker/planner/advice.h"

namespace weft {
namespace {

constexpr int kEveryNumber = 32;  // up to so many slots each number is tried, then powers of two
constexpr int kSlotsMax = 65536;

HostSpeed speed_of(const proto::NodeInfo& node) {
  const bool gpu = node.gpus() > 0;
  HostSpeed speed = gpu ? kUnknownGpu : HostSpeed();
  const auto known = [](double measured, double& into) {
    if (measured > 0) into = measured;
  };
  known(gpu ? node.gpu_flops() : node.flops_per_core(), speed.flops);
  known(gpu ? node.gpu_half_flops() : node.half_flops_per_core(), speed.half_flops);
  known(gpu ? node.gpu_copy_bytes_per_second() : node.copy_bytes_per_second(), speed.memory);
  known(node.link_bytes_per_second(), speed.link);
  if (gpu) known(node.gpu_link_bytes_per_second(), speed.local);
  return speed;
}

class Nodes {
 public:
  Nodes(std::vector<proto::NodeInfo> nodes, const proto::ResourceSpec& asked)
      : nodes_(std::move(nodes)), asked_(asked) {
    if (nodes_.empty()) {  // nothing is known: one node, as large as it has to be
      nodes_.emplace_back().set_slots(asked.slots());
      nodes_.back().set_cores(asked.slots());
      if (wanted_gpu(asked).value_or(false)) nodes_.back().set_gpus(asked.slots());
    }
    for (const proto::NodeInfo& node : nodes_) {
      known_.push_back(snapshot_of(node));
      groups_.push_back(known_.back().group());
    }
  }

  // Refers to this, the model and the job.
  PlanRequirements requirements(const AdmittedModel& model, const proto::JobSpec& spec) const {
    return {
        *model.family, *model.config,
        spec,          slot_numbers(std::min(slots(), kSlotsMax)),
        devices(),     [this](int ranks, const RankNeeds& needs) { return find(ranks, needs); }};
  }

 private:
  // Of the device that has most of them, as they do not mix.
  int slots() const {
    std::array<int, 2> of_device{};
    for (const SnapshotNode& node : known_) {
      if (suits(node, {.gpu = wanted_gpu(asked_)})) of_device[node.gpu ? 1 : 0] += node.slots;
    }
    return std::max(of_device[0], of_device[1]);
  }

  std::vector<int> slot_numbers(int most) const {
    if (asked_.slots() > 0) return {asked_.slots()};
    std::vector<int> numbers;
    for (int n = std::max(1, asked_.nodes()); n <= most; n = n < kEveryNumber ? n + 1 : 2 * n) {
      numbers.push_back(n);
    }
    if (!numbers.empty() && numbers.back() < most) numbers.push_back(most);
    return numbers;
  }

  // Those that the job may run on, with what their largest slot has.
  std::vector<SlotMemory> devices() const {
    std::vector<SlotMemory> devices;
    for (const bool gpu : {true, false}) {
      std::optional<SlotMemory> device;
      for (size_t i = 0; i < known_.size(); ++i) {
        const SnapshotNode& node = known_[i];
        if (node.gpu != gpu || !suits(node, {.gpu = wanted_gpu(asked_)})) continue;
        if (!device) device = {.gpu = gpu};
        device->memory = std::max(device->memory, gpu ? node.gpu_bytes : node.slot_bytes);
        device->host = std::max(device->host, node.slot_bytes);
        device->threads = std::max(device->threads, threads_of(nodes_[i], asked_));
      }
      if (device) devices.push_back(*device);
    }
    return devices;
  }

  // As the scheduler would place them on empty nodes that have the memory.
  std::optional<std::vector<HostShare>> find(int slots, const RankNeeds& needs) const {
    Gang gang{slots, asked_.nodes(), needs.gpu, {}};
    gang.memory = {.host = needs.memory, .gpu = needs.memory, .gpu_host = needs.host};
    std::vector<int> all;
    for (const proto::NodeInfo& node : nodes_) all.push_back(node.slots());
    const auto places =
        fit_reachable(free_for(gang, std::move(all), known_), groups_, slots, gang.nodes);
    if (!places) return std::nullopt;
    // Nodes with a loopback address are one machine, whose cores they share.
    const bool one_machine = !known_[static_cast<size_t>(places->front().node)].loopback.empty();
    const int sharing = one_machine && !needs.gpu ? static_cast<int>(places->size()) : 1;
    std::vector<HostShare> hosts;
    for (const SlotCount& place : *places) {
      const proto::NodeInfo& node = nodes_[static_cast<size_t>(place.node)];
      hosts.push_back({.speed = speed_of(node),
                       .cores = needs.gpu ? node.gpus() : std::max(1, node.cores() / sharing),
                       .threads = needs.gpu ? 1 : threads_of(node, asked_),
                       .ranks = place.slots,
                       .gpu = needs.gpu,
                       .loopback = one_machine});
    }
    return hosts;
  }

  std::vector<proto::NodeInfo> nodes_;
  const proto::ResourceSpec asked_;
  std::vector<SnapshotNode> known_;  // as nodes_
  std::vector<int> groups_;
};

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
  if (ready.empty() || !check_feasible(known, {slots, asked.nodes(), wanted_gpu(asked)}).ok()) {
    return nodes;
  }
  return ready;
}

}  // namespace

GangSource source_of(const proto::JobSpec& written) {
  const proto::ParallelSpec& mesh = written.parallel();
  if (written.resources().slots() > 0 || mesh.mode() == proto::PARALLEL_MODE_AUTO) return {};
  std::vector<GangSource> above_one;
  for (const auto& [axis, degree] :
       {std::pair{"data", mesh.data()}, {"sequence", mesh.sequence()}, {"tensor", mesh.tensor()}}) {
    if (degree > 1) above_one.push_back({std::string("parallel.") + axis, std::to_string(degree)});
  }
  if (above_one.size() == 1) return above_one.front();
  const auto degree = [](int32_t given) { return std::max(1, given); };
  return {"parallel", fmt::format("data {} x sequence {} x tensor {}", degree(mesh.data()),
                                  degree(mesh.sequence()), degree(mesh.tensor()))};
}

Result<proto::JobPlan> plan_on(const std::vector<proto::NodeInfo>& nodes,
                               const AdmittedModel& model, const proto::JobSpec& spec,
                               const GangSource& source, int64_t rows_at_once) {
  const proto::ResourceSpec& asked = spec.resources();
  if (nodes.empty() && asked.slots() == 0) {
    return fail(Status::invalid("resources.slots", "0",
                                "must say how many ranks to plan for, as no node has joined yet"));
  }
  std::vector<SnapshotNode> known;
  for (const proto::NodeInfo& node : nodes) known.push_back(snapshot_of(node));
  const int least = asked.slots() > 0 ? asked.slots() : std::max(1, asked.nodes());
  const bool by_nodes = asked.slots() == 0 && asked.nodes() > 0;
  const GangSource named =
      by_nodes ? GangSource{"resources.nodes", std::to_string(asked.nodes())} : source;
  WEFT_RETURN_IF_ERROR(check_feasible(known, {least, asked.nodes(), wanted_gpu(asked)}, named));
  const Nodes usable(nodes_to_use(nodes, asked), asked);
  PlanRequirements requirements = usable.requirements(model, spec);
  requirements.rows_at_once = rows_at_once;
  proto::JobPlan plan = plan_job(requirements);
  if (plan.has_chosen()) return plan;
  const std::string advice = what_would_fit(requirements);
  if (!advice.empty()) plan.set_reason(plan.reason() + "; " + advice);
  return plan;
}

std::string advice_on(const std::vector<proto::NodeInfo>& nodes, const AdmittedModel& model,
                      const proto::JobSpec& spec) {
  proto::ResourceSpec open = spec.resources();
  open.clear_slots();
  return what_would_fit(Nodes(nodes, open).requirements(model, spec));
}

}  // namespace weft
