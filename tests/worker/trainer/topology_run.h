// A few steps of a job, and what they leave.
//
// Thread safety: a Trace that several ranks add to is guarded by its mutex.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "tests/testing/memory_progress.h"
#include "worker/setup.h"
#include "worker/step.h"

namespace weft::testing {

// Of the whole model: every shard put where it belongs, what ranks have several times found the
// same on all of them. Moments hold the gradients of every step; what is frozen has none.
struct Trace {
  std::vector<double> losses, norms;
  std::map<std::string, std::vector<float>> weights, first_moments, second_moments;
};

inline void place(std::map<std::string, std::vector<float>>& all, const ParameterInfo& info,
                  const Singles& values, int64_t first) {
  std::vector<float>& whole = all[info.name];
  const float nobody = std::numeric_limits<float>::quiet_NaN();
  whole.resize(static_cast<size_t>(info.shape.elements()), nobody);
  bool alike = true;
  const std::vector<float> own = values.to_vector();
  const int64_t end = first + static_cast<int64_t>(own.size());
  for_each_shard_run(info, [&](int64_t local, int64_t global, int64_t count) {
    const int64_t from = std::clamp(first, local, local + count);
    const int64_t to = std::clamp(end, from, local + count);
    for (int64_t i = from; i < to; ++i) {
      float& there = whole[static_cast<size_t>(global + i - local)];
      const float here = own[static_cast<size_t>(i - first)];
      alike &= std::isnan(there) || std::memcmp(&there, &here, sizeof(float)) == 0;
      there = here;
    }
  });
  if (!alike) ADD_FAILURE() << "ranks have another " << info.name;
}

// Trains `steps` steps, the tasks taking turns, and adds what this rank has to `trace`. A
// collective.
inline void train_steps(Rank& rank, const proto::LaunchRecord& launch, int steps, Trace& trace,
                        std::mutex& mutex) {
  MemoryCluster cluster;
  MemoryProgress progress(cluster);
  const auto set = set_up(rank, launch, progress);
  if (!set) throw StatusError(set.error());
  Training& training = **set;
  std::vector<double> losses, norms;
  for (int step = 0; step < steps; ++step) {
    TrainingTask& task = training.tasks[static_cast<size_t>(step) % training.tasks.size()];
    const StepResult result = run_step(rank, launch.spec(), training, task, 3e-3);
    if (!result.applied) throw StatusError(Status(Code::kInternal, "a step was not applied"));
    training.state.set_step(training.state.step() + 1);
    losses.push_back(result.loss);
    norms.push_back(result.gradient_norm);
  }
  training.optimizer->finish_values();  // nothing is on its way when the ranks part
  const std::lock_guard lock(mutex);
  if (!trace.losses.empty() && losses != trace.losses) ADD_FAILURE() << "ranks tell other losses";
  trace.losses = losses;
  trace.norms = norms;
  const auto& parameters = training.optimizer->parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const AdamW::State& state = training.optimizer->states()[i];
    const int64_t first = state.own ? state.own->start : 0;
    place(trace.weights, parameters[i].info, state.master, first);
    if (!parameters[i].info.trained) continue;
    place(trace.first_moments, parameters[i].info, state.first_moment, first);
    place(trace.second_moments, parameters[i].info, state.second_moment, first);
  }
}

// Bits, not values: a zero's sign counts.
template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Which parts of two traces differ; "": none.
inline std::string difference(const Trace& a, const Trace& b) {
  std::string what;
  if (!same_bits(a.losses, b.losses)) what += " losses";
  if (!same_bits(a.norms, b.norms)) what += " norms";
  for (const auto& [name, values] : a.weights) {
    if (!same_bits(values, b.weights.at(name))) what += " " + name;
    if (!a.first_moments.contains(name)) continue;
    if (!same_bits(a.first_moments.at(name), b.first_moments.at(name))) {
      what += " first moment of " + name;
    }
    if (!same_bits(a.second_moments.at(name), b.second_moments.at(name))) {
      what += " second of " + name;
    }
  }
  return what;
}

}  // namespace weft::testing
