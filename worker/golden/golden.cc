#include "worker/golden/golden.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "worker/checkpoint/safetensors.h"
#include "worker/golden/comparer.h"
#include "worker/golden/updates.h"

namespace weft::golden {
namespace {

void compare_case(Replica& replica, const Case& golden, Comparer& comparer) {
  const double loss = replica.outputs(golden, comparer);
  comparer.scalar("loss", "loss", loss, double{golden.tensors.at("loss").values.at(0)});
  replica.gradients_of(golden.inputs, 0);
  for (Parameter* parameter : replica.parameters()) {
    const std::string name = replica.file_name(*parameter);
    const auto expected = golden.tensors.find("grad." + name);
    if (expected != golden.tensors.end()) comparer.gradient(name, *parameter, expected->second);
  }
  comparer.zero_gradients(golden.zero_gradients);
  replica.clear();
}

std::vector<float> read_whole(const SafetensorsSet& files, const std::string& name) {
  const SafetensorInfo* info = files.find(name);
  if (info == nullptr) throw StatusError(Status::invalid(name, "absent", "is missing"));
  std::vector<float> values(static_cast<size_t>(info->elements()));
  const Status status = files.read(name, -1, 0, 0, values);
  if (!status.ok()) throw StatusError(status);
  return values;
}

SafetensorsSet open_files(const std::vector<std::string>& paths) {
  Result<SafetensorsSet> files = SafetensorsSet::open(paths);
  if (!files) throw StatusError(std::move(files).error());
  return std::move(*files);
}

// The weights of the files with their adapter, as exports and later jobs have them. Every rank
// compares all.
void compare_merged(const Case& golden, Comparer& comparer) {
  if (golden.adapter_weights.empty()) return;
  const HfFolder& folder = golden.folder;
  const SafetensorsSet base = open_files(folder.weight_files);
  const SafetensorsSet adapter = open_files({golden.adapter_weights});
  const std::vector<ParameterInfo> plan = folder.family->plan(*folder.config, 1, 0);
  const Adapter& described = folder.config->adapter;
  for (size_t i = 0; i < plan.size(); ++i) {
    const auto expected = golden.tensors.find("merged." + plan[i].adapts);
    if (expected == golden.tensors.end() || adapter_part(plan[i]) != AdapterPart::kInput) continue;
    const auto read = [&](const ParameterInfo& info) {
      return read_whole(adapter, std::string(kPeftPrefix) + info.name);
    };
    std::vector<float> weight;
    for (const std::string& name : folder.family->file_names(plan[i].adapts)) {
      if (weight.empty() && base.find(name) != nullptr) weight = read_whole(base, name);
    }
    MergedAdapter merged(described, folder.family->layout(), read(plan[i]), read(plan[i + 1]));
    if (described.dora) {
      merged.measure(0, weight);
      merged.rescale(read(plan[i + 2]));
    }
    merged.merge_into(0, weight);
    double difference = 0;
    for (size_t at = 0; at < weight.size(); ++at) {
      const double off = comparer.difference(weight[at], expected->second.values[at]);
      difference = std::isnan(off) ? off : std::max(difference, off);
    }
    comparer.part(expected->first, difference, largest_of(expected->second));
  }
}

void compare_trajectory(Rank& rank, const Case& golden, DType precision, Comparer& comparer,
                        bool accumulate) {
  const Trajectory& trajectory = golden.trajectory;
  const auto& steps = accumulate ? trajectory.accumulated : trajectory.steps;
  if (steps.empty()) return;
  const std::string prefix = accumulate ? "accumulated step " : "step ";
  Replica replica(rank, golden);
  const auto updates = make_updates(rank, replica, trajectory.optimizer, precision);
  for (size_t i = 0; i < steps.size(); ++i) {
    const ExpectedStep& expected = steps[i];
    const std::string step = prefix + std::to_string(i);
    const TaskRows& rows = golden.batches[static_cast<size_t>(expected.batch)];
    const double loss = replica.gradients_of(rows, accumulate ? 2 : 1);
    const double norm = updates->gradient_norm();
    const double rate = trajectory.schedule.rate(static_cast<int64_t>(i));
    comparer.scalar(step + " loss", "loss", loss, expected.loss);
    comparer.scalar(step + " grad_norm", "grad_norm", norm, expected.gradient_norm);
    comparer.scalar(step + " lr", "lr", rate, expected.rate);
    updates->step(rate, clip_factor(norm, trajectory.clip));
  }
  if (accumulate) return;
  comparer.scalar("loss_on_case_after", "loss", replica.loss_of(golden.inputs),
                  trajectory.loss_on_case_after);
  for (size_t i = 0; i < updates->parameters().size(); ++i) {
    const Parameter& parameter = updates->parameters()[i];
    const std::string name = replica.file_name(parameter);
    const auto expected = trajectory.parameter_norms_after.find(name);
    if (expected == trajectory.parameter_norms_after.end()) continue;
    const double norm = replica.norm_of(parameter, updates->master(i));
    comparer.scalar("norm after of " + name, "norm after", norm, expected->second);
  }
}

}  // namespace

bool Report::passed() const {
  return !deviations.empty() &&
         std::all_of(deviations.begin(), deviations.end(),
                     [](const Deviation& deviation) { return deviation.within(); });
}

const Deviation& Report::worst() const {
  WEFT_CHECK(!deviations.empty());
  const auto badness = [](const Deviation& deviation) {
    return std::isnan(deviation.error) ? std::numeric_limits<double>::infinity()
                                       : deviation.error / deviation.bar;
  };
  return *std::max_element(
      deviations.begin(), deviations.end(),
      [&](const Deviation& a, const Deviation& b) { return badness(a) < badness(b); });
}

Report run_case(Rank& rank, const Case& golden, DType precision) {
  const Communicator& world = rank.mesh.axis(Axis::kWorld);
  if (precision == DType::kF64 && (world.size() > 1 || !rank.allocator->device().is_cpu())) {
    throw StatusError(Status::invalid("float64", std::to_string(world.size()) + " ranks",
                                      "is for one rank on the CPU, as gradients are summed over "
                                      "ranks in fp32"));
  }
  Comparer comparer(rank, golden, precision);
  {
    Replica replica(rank, golden);
    std::vector<Parameter> handles = replica.handles();
    round_parameters(rank, handles, precision);
    compare_case(replica, golden, comparer);
  }
  if (precision == DType::kF32) compare_merged(golden, comparer);
  compare_trajectory(rank, golden, precision, comparer, false);
  compare_trajectory(rank, golden, precision, comparer, true);
  return {golden.name, comparer.finish()};
}

}  // namespace weft::golden
