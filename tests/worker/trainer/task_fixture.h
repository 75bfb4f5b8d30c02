// What the tests of a kind of task share: a job of such tasks, its runs on meshes, and what its
// records say.
//
// Thread safety: one thread.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/worker/trainer/trainer_fixture.h"

namespace weft {

struct MeshAndLevel {
  MeshDegrees mesh;
  int zero = 0;
  std::string name() const {
    return std::to_string(mesh.data) + "x" + std::to_string(mesh.sequence) + "x" +
           std::to_string(mesh.tensor) + " zero " + std::to_string(zero);
  }
};

// Each axis alone and with another, of even and odd degrees; each level of ZeRO's on several of
// them (worker_trainer_test has every level on every mesh).
inline const std::vector<MeshAndLevel> kMeshesAndLevels = {
    {{2, 1, 1}, 0}, {{2, 1, 1}, 3}, {{4, 1, 1}, 2}, {{1, 2, 1}, 0}, {{1, 3, 1}, 3},
    {{1, 1, 3}, 0}, {{2, 2, 1}, 3}, {{2, 1, 2}, 2}, {{1, 2, 2}, 0}};

class TaskTrainer : public Trainer {
 protected:
  explicit TaskTrainer(const char* job) : job_(job) {}

  proto::LaunchRecord launch(MeshDegrees mesh, int zero = 0) {
    proto::LaunchRecord launch = record(job_, mesh);
    launch.mutable_spec()->mutable_parallel()->set_zero(zero);
    launch.mutable_spec()->mutable_parallel()->set_bucket_bytes(4096);
    return launch;
  }
  void run(const proto::LaunchRecord& launch, MemoryCluster& cluster) {
    const Status status = train(launch, cluster);
    ASSERT_TRUE(status.ok()) << status.to_string();
  }
  std::map<int64_t, double> losses(const proto::LaunchRecord& launch) {
    MemoryCluster cluster;
    run(launch, cluster);
    return cluster.losses();
  }
  // Of each record of the task that has one of this name, in order. task: empty: any.
  static std::vector<double> values(MemoryCluster& cluster, const std::string& name,
                                    const std::string& task = "") {
    std::vector<double> found;
    for (const proto::MetricRecord& record : cluster.metrics) {
      const auto value = record.values().find(name);
      if (value == record.values().end() || (!task.empty() && record.task() != task)) continue;
      found.push_back(value->second);
    }
    return found;
  }

  // One rank's losses up to two steps after an evaluation, in training and on held-out data, within
  // 1e-4 of themselves (losses below `floor`: of it) and `rounding`; and figures of these names to
  // the bit.
  void expect_one_curve(std::initializer_list<const char*> names, double floor = 0,
                        double rounding = 0) {
    const auto curve = [&](MeshDegrees mesh, int zero, MemoryCluster& cluster) {
      proto::LaunchRecord record = launch(mesh, zero);
      proto::TrainingSpec& training = *record.mutable_spec()->mutable_training();
      training.set_steps(training.evaluate_every() + 2);
      run(record, cluster);
    };
    MemoryCluster alone;
    curve({}, 0, alone);
    const auto near = [&](double value, double expected, const std::string& where) {
      EXPECT_NEAR(value, expected, 1e-4 * std::max(expected, floor) + rounding) << where;
    };
    const auto one = alone.losses();
    const std::vector<double> held_out = values(alone, "validation_loss");
    for (const MeshAndLevel& at : kMeshesAndLevels) {
      MemoryCluster cluster;
      curve(at.mesh, at.zero, cluster);
      const auto losses = cluster.losses();
      ASSERT_EQ(losses.size(), one.size()) << at.name();
      for (const auto& [step, loss] : one) {
        near(losses.at(step), loss, at.name() + " step " + std::to_string(step));
      }
      const std::vector<double> others = values(cluster, "validation_loss");
      ASSERT_EQ(others.size(), held_out.size()) << at.name();
      for (size_t i = 0; i < others.size(); ++i) near(others[i], held_out[i], at.name());
      for (const char* name : names) {
        EXPECT_EQ(values(cluster, name), values(alone, name)) << at.name() << " " << name;
      }
    }
  }
  // Of a run that dies after each of these steps and is taken up again from its last checkpoint.
  void expect_resumes_bit_for_bit(std::initializer_list<int64_t> deaths) {
    proto::LaunchRecord attempt = launch({2, 1, 1});
    MemoryCluster whole;
    run(attempt, whole);
    MemoryCluster cluster;
    for (const int64_t death : deaths) {
      cluster.die_after_step = death;
      EXPECT_THROW(static_cast<void>(train(attempt, cluster)), StatusError);
      *attempt.mutable_resume() = cluster.checkpoints.back();
    }
    cluster.die_after_step = -1;
    run(attempt, cluster);
    EXPECT_EQ(cluster.losses(), whole.losses());
  }

  // Of a model without a sequence axis: one rank's losses, which fall, within 1e-4 of themselves
  // (those below `floor`: of it) on other axes, levels of ZeRO and kinds of recomputation.
  void expect_one_curve_of_recomputation(double floor = 0) {
    const auto one = losses(launch({}));
    EXPECT_LT(one.rbegin()->second, 0.7 * one.begin()->second) << "it is learned";
    const std::pair<MeshAndLevel, proto::ActivationCheckpointing> others[] = {
        {{{2, 1, 1}, 0}, proto::ACTIVATION_CHECKPOINTING_NONE},
        {{{2, 1, 1}, 3}, proto::ACTIVATION_CHECKPOINTING_FULL},
        {{{3, 1, 1}, 1}, proto::ACTIVATION_CHECKPOINTING_SELECTIVE},
        {{{1, 1, 2}, 0}, proto::ACTIVATION_CHECKPOINTING_FULL},
        {{{1, 1, 4}, 0}, proto::ACTIVATION_CHECKPOINTING_NONE},  // more ranks than heads
        {{{2, 1, 2}, 2}, proto::ACTIVATION_CHECKPOINTING_SELECTIVE}};
    for (const auto& [at, recompute] : others) {
      proto::LaunchRecord other = launch(at.mesh, at.zero);
      other.mutable_spec()->mutable_training()->set_activation_checkpointing(recompute);
      const auto found = losses(other);
      ASSERT_EQ(found.size(), one.size()) << at.name();
      for (const auto& [step, loss] : one) {
        EXPECT_NEAR(found.at(step), loss, 1e-4 * std::max(loss, floor)) << at.name() << " " << step;
      }
    }
  }
  // bf16 on a mesh begins near one rank's fp32 and learns as well.
  void expect_half_precision_is_near() {
    const auto one = losses(launch({}));
    proto::LaunchRecord half = launch({2, 1, 2}, 3);
    half.mutable_spec()->mutable_training()->set_precision(proto::PRECISION_BF16);
    const auto found = losses(half);
    EXPECT_NEAR(found.begin()->second, one.begin()->second, 0.03 * one.begin()->second);
    EXPECT_LT(found.rbegin()->second, 0.7 * found.begin()->second);
  }

 private:
  const char* job_;
};

}  // namespace weft
