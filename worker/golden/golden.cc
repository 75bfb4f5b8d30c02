#include "worker/golden/golden.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "worker/golden/comparer.h"
#include "worker/golden/replica.h"

namespace weft::golden {
namespace {

void compare_case(Replica& replica, const Case& golden, Comparer& comparer) {
  const double loss = replica.outputs(golden, comparer);
  comparer.scalar("loss", loss, double{golden.tensors.at("loss").values.at(0)}, kBar);
  replica.gradients_of(golden.inputs, 0);
  for (Parameter* parameter : replica.parameters()) {
    const std::string name = replica.file_name(*parameter);
    const auto expected = golden.tensors.find("grad." + name);
    if (expected != golden.tensors.end()) comparer.gradient(name, *parameter, expected->second);
  }
  comparer.zero_gradients(golden.zero_gradients);
  replica.clear();
}

void compare_trajectory(Rank& rank, const Case& golden, Comparer& comparer, bool accumulate) {
  const Trajectory& trajectory = golden.trajectory;
  const auto& steps = accumulate ? trajectory.accumulated : trajectory.steps;
  if (steps.empty()) return;
  const std::string prefix = accumulate ? "accumulated step " : "step ";
  Replica replica(rank, golden);
  AdamW optimizer(rank, replica.handles(), trajectory.optimizer);
  for (size_t i = 0; i < steps.size(); ++i) {
    const ExpectedStep& expected = steps[i];
    const std::string step = prefix + std::to_string(i);
    const TaskRows& rows = golden.batches[static_cast<size_t>(expected.batch)];
    const double loss = replica.gradients_of(rows, accumulate ? 2 : 1);
    const double norm = global_gradient_norm(rank, optimizer.parameters());
    const double rate = trajectory.schedule.rate(static_cast<int64_t>(i));
    comparer.scalar(step + " loss", loss, expected.loss, kBar);
    comparer.scalar(step + " grad_norm", norm, expected.gradient_norm, kBar);
    comparer.scalar(step + " lr", rate, expected.rate, kRateBar);
    optimizer.step(rate, clip_factor(norm, trajectory.clip));
  }
  if (accumulate) return;
  comparer.scalar("loss_on_case_after", replica.loss_of(golden.inputs),
                  trajectory.loss_on_case_after, kBar);
  for (Parameter* parameter : replica.parameters()) {
    const std::string name = replica.file_name(*parameter);
    const auto expected = trajectory.parameter_norms_after.find(name);
    if (expected == trajectory.parameter_norms_after.end()) continue;
    comparer.scalar("norm after of " + name, replica.norm_of(*parameter), expected->second,
                    kNormBar);
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

Report run_case(Rank& rank, const Case& golden) {
  Comparer comparer(rank);
  {
    Replica replica(rank, golden);
    compare_case(replica, golden, comparer);
  }
  compare_trajectory(rank, golden, comparer, false);
  compare_trajectory(rank, golden, comparer, true);
  return {golden.name, comparer.finish()};
}

}  // namespace weft::golden
