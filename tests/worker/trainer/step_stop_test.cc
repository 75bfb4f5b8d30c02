// Steps that are left half-way: when, and that nothing of them remains.
#include "worker/step_stop.h"

#include "tests/worker/trainer/trainer_fixture.h"
#include "worker/step.h"

namespace weft {
namespace {

// The micro-batches after which a step of `count` asks, each taking so long; leaves at `pause_at`.
struct Asked {
  std::vector<int64_t> after;
  int64_t left_after = 0;
};
Asked asked(StepStop& stop, SimulatedClock& clock, double seconds_each, int64_t count,
            std::vector<int64_t>& calls) {
  Asked all;
  stop.begin();
  for (int64_t done = 1; done <= count; ++done) {
    clock.advance(Clock::Duration(static_cast<int64_t>(seconds_each * 1e9)));
    const size_t before = calls.size();
    const bool leaves = stop.after(done, count);
    if (calls.size() > before) all.after.push_back(done);
    if (!leaves) continue;
    all.left_after = done;
    break;
  }
  return all;
}

TEST(StepStop, AsksAboutEveryFiveSecondsOfAStepAndLeavesOneThatTakesLong) {
  testing::run_ranks(1, [](Rank& rank) {
    SimulatedClock clock;
    std::vector<int64_t> calls;
    proto::ControlKind control = proto::CONTROL_KIND_UNSPECIFIED;
    const auto heard = [&] {
      calls.push_back(1);
      return control;
    };
    StepStop stop(rank, heard, clock, {.ask = 5, .finish = 10});
    const auto after = [&](double each, int64_t count) {
      return asked(stop, clock, each, count, calls).after;
    };
    using Numbers = std::vector<int64_t>;
    EXPECT_EQ(after(0.25, 1), Numbers{});
    EXPECT_EQ(after(0.25, 45), (Numbers{1, 21, 41}));  // the first one is measured
    EXPECT_EQ(after(0.25, 20), Numbers{});             // a usual step
    EXPECT_EQ(after(1, 40), (Numbers{20, 25, 30, 35}));
    EXPECT_EQ(after(60, 4), (Numbers{})) << "5 of them were as long as a question lets pass";
    control = proto::CONTROL_KIND_CHECKPOINT;
    EXPECT_EQ(asked(stop, clock, 1, 40, calls).left_after, 0);
    control = proto::CONTROL_KIND_PAUSE;
    EXPECT_EQ(asked(stop, clock, 1, 15, calls).left_after, 0);  // 10 s are left, then 5
    EXPECT_EQ(asked(stop, clock, 1, 40, calls).left_after, 5);
    control = proto::CONTROL_KIND_CANCEL;
    EXPECT_EQ(asked(stop, clock, 1, 16, calls).left_after, 5);
  });
}

TEST(StepStop, RanksLeaveAfterTheSameMicroBatchWhicheverHeardOfIt) {
  std::mutex mutex;
  std::vector<int64_t> left;
  testing::run_ranks(3, [&](Rank& rank) {
    const int mine = rank.mesh.index(Axis::kWorld);
    SimulatedClock clock;
    std::vector<int64_t> calls;
    int64_t heard = 0;
    const auto hears = [&] {
      calls.push_back(1);
      const bool pause = mine == 2 && ++heard == 3;
      return pause ? proto::CONTROL_KIND_PAUSE : proto::CONTROL_KIND_UNSPECIFIED;
    };
    StepStop stop(rank, hears, clock, {.ask = 5, .finish = 10});
    const Asked all = asked(stop, clock, 0.5 * (mine + 1), 1000, calls);
    const std::lock_guard lock(mutex);
    left.push_back(all.left_after);
  });
  EXPECT_EQ(left, (std::vector<int64_t>{7, 7, 7}));  // of the slowest 1.5 s each: 3 between two
}

// Parameters and moments.
std::vector<float> values_of(Training& training) {
  training.optimizer->finish_values();
  std::vector<float> all;
  for (const checkpoint::StateTensor& tensor : training.state_tensors()) {
    const std::vector<float> values = tensor.value.to_vector();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

class LeftStep : public Trainer {};

TEST_F(LeftStep, IsDoneAgainBitForBit) {
  const auto trained = [&](MeshDegrees mesh, int zero, bool leaves) {
    proto::LaunchRecord job = record(kTwoTasks, mesh);
    job.mutable_spec()->mutable_training()->set_batch_size(12);
    job.mutable_spec()->mutable_parallel()->set_zero(zero);
    std::mutex mutex;
    std::map<int, std::vector<float>> values;
    on_ranks(job, [&](Rank& rank, const proto::JobSpec& spec, Training& training) {
      const SystemClock clock;
      const auto pause = [] { return proto::CONTROL_KIND_PAUSE; };
      for (int step = 0; step < 3; ++step) {
        training.state.set_step(step);
        TrainingTask& task = training.tasks[static_cast<size_t>(step % 2)];
        if (leaves) {
          StepStop stop(rank, pause, clock, {.ask = 0, .finish = 0});
          EXPECT_EQ(run_step(rank, spec, training, task, 1e-3, &stop).left_after, 1);
        }
        EXPECT_TRUE(run_step(rank, spec, training, task, 1e-3).applied);
      }
      std::vector<float> mine = values_of(training);
      const std::lock_guard lock(mutex);
      values[rank.mesh.index(Axis::kWorld)] = std::move(mine);
    });
    return values;
  };
  for (const MeshDegrees mesh :
       {MeshDegrees{1, 1, 1}, MeshDegrees{2, 1, 1}, MeshDegrees{1, 2, 1}, MeshDegrees{1, 1, 3}}) {
    for (const int zero : {0, 1, 2, 3}) {
      if (zero > 0 && mesh.data * mesh.sequence == 1) continue;
      EXPECT_EQ(trained(mesh, zero, true), trained(mesh, zero, false))
          << mesh.data << "x" << mesh.sequence << "x" << mesh.tensor << " zero " << zero;
    }
  }
}

// As if it had come before the step, which would take minutes.
TEST_F(LeftStep, EndsInTheCheckpointOfTheBoundaryBeforeIt) {
  const auto paused = [&](int after_calls) {
    proto::LaunchRecord job = record(kTwoTasks, {2, 1, 1});
    job.mutable_spec()->mutable_training()->set_batch_size(1 << 19);
    job.mutable_spec()->mutable_training()->set_micro_batch_size(1);
    MemoryCluster cluster;
    cluster.control_at_step = 0;
    cluster.control = proto::CONTROL_KIND_PAUSE;
    cluster.control_after_calls = after_calls;
    EXPECT_TRUE(train(job, cluster).ok());
    EXPECT_EQ(cluster.finishes.at(0).outcome(), "paused");
    std::vector<std::string> events;
    for (const proto::RankEvent& event : cluster.events) events.push_back(event.type());
    EXPECT_EQ(events, std::vector<std::string>(static_cast<size_t>(after_calls), "step_left"));
    proto::CheckpointManifest manifest = cluster.checkpoints.at(0);
    EXPECT_EQ(manifest.why(), "pause");
    EXPECT_EQ(manifest.state().step(), 0);
    manifest.clear_created_ms();
    return manifest.DebugString();
  };
  EXPECT_EQ(paused(1), paused(0));
}

}  // namespace
}  // namespace weft
