// Steps that are left half-way: when, and that nothing of them remains.
#include "worker/step_stop.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <string_view>

#include "tests/worker/trainer/trainer_fixture.h"
#include "worker/evaluation.h"
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

// Its micro-batches are counted before they are there, on each rank and also where it has no rows.
TEST_F(LeftStep, AnEvaluationHasAsManyMicroBatchesAsAreAskedAfter) {
  const auto check = [&](MeshDegrees mesh, int batch_rows, int micro_batch_rows, bool invariant) {
    proto::LaunchRecord job = record(kTwoTasks, mesh);
    proto::TrainingSpec& settings = *job.mutable_spec()->mutable_training();
    settings.set_batch_size(batch_rows);
    settings.set_micro_batch_size(micro_batch_rows);
    if (invariant) settings.set_reproducible(proto::REPRODUCIBLE_TOPOLOGY);
    on_ranks(job, [](Rank& rank, const proto::JobSpec& spec, Training& training) {
      EXPECT_EQ(evaluation_rounds(rank, spec, training.tasks[0]), 0) << "no validation data";
      TrainingTask& task = training.tasks[1];
      int64_t asked = 0;
      const auto stays = [&] { return ++asked < 0; };
      EXPECT_TRUE(evaluate_task(rank, spec, training, task, stays));
      EXPECT_GT(asked, 0);
      EXPECT_EQ(asked, evaluation_rounds(rank, spec, task));
      EXPECT_FALSE(evaluate_task(rank, spec, training, task, [] { return true; }));
    });
  };
  for (const MeshDegrees mesh :
       {MeshDegrees{1, 1, 1}, MeshDegrees{3, 1, 1}, MeshDegrees{2, 2, 1}}) {
    for (const int batch_rows : {4, 31, 100}) check(mesh, batch_rows, 1, false);
  }
  for (const MeshDegrees mesh : {MeshDegrees{1, 1, 1}, MeshDegrees{2, 2, 1}}) {
    check(mesh, 16, 8 / mesh.data, true);
  }
}

class LeftEvaluation : public Trainer {
 protected:
  // Minutes of validation data, or little.
  void write_rows(int64_t count) {
    fs::create_directories(folder_ / "obj-held");
    std::ofstream rows(folder_ / "obj-held" / "rows.jsonl");
    for (int64_t i = 0; i < count; ++i) {
      rows << R"({"text": "a row of the held data, )" << i % 7 << R"(", "label": )" << i % 3
           << "}\n";
    }
  }
  proto::LaunchRecord job(MeshDegrees mesh, int every) {
    std::string text = kTwoTasks;
    text.replace(text.find("validation: obj-rows"), 20, "validation: obj-held");
    proto::LaunchRecord job = record(text, mesh);
    proto::TrainingSpec& training = *job.mutable_spec()->mutable_training();
    training.set_steps(4);
    training.set_evaluate_every(every);
    training.set_micro_batch_size(1);
    return job;
  }
  // The final checkpoint's state but for the checkpoint's own ids, and what was measured.
  static std::string end(MemoryCluster& cluster) {
    proto::CheckpointManifest last = cluster.checkpoints.back();
    EXPECT_EQ(last.why(), "end");
    std::string text = last.state().DebugString();
    for (const proto::TensorEntry& tensor : last.tensors()) text += tensor.ShortDebugString();
    for (const proto::MetricRecord& record : cluster.metrics) {
      for (const char* name : {"loss", "validation_loss"}) {
        const auto found = record.values().find(name);
        if (found == record.values().end()) continue;
        text += fmt::format("\n{} {} {} {}", record.step(), record.task(), name, found->second);
      }
    }
    const auto& results = cluster.finishes.back().results();
    return text + fmt::format("\nkind {}", results.at("kind.validation_loss"));
  }
};

TEST_F(LeftEvaluation, IsDoneAgainWholeWhenTheJobGoesOn) {
  for (const MeshDegrees mesh : {MeshDegrees{1, 1, 1}, MeshDegrees{2, 1, 1}}) {
    for (const int step : {2, 4}) {  // between steps, and at the end
      write_rows(5);
      MemoryCluster whole;
      ASSERT_TRUE(train(job(mesh, step), whole).ok());
      MemoryCluster cluster;
      cluster.control_at_step = step;
      cluster.control = proto::CONTROL_KIND_PAUSE;
      write_rows(300'000);
      ASSERT_TRUE(train(job(mesh, step), cluster).ok());
      ASSERT_EQ(cluster.events.size(), 1U);
      EXPECT_EQ(cluster.events[0].type(), "evaluation_left");
      EXPECT_EQ(cluster.events[0].step(), step);
      EXPECT_EQ(cluster.finishes.at(0).outcome(), "paused");
      EXPECT_EQ(cluster.checkpoints.back().why(), "pause");
      EXPECT_EQ(cluster.checkpoints.back().state().step(), step);

      write_rows(5);
      cluster.control_at_step = -1;
      proto::LaunchRecord again = job(mesh, step);
      *again.mutable_resume() = cluster.checkpoints.back();
      ASSERT_TRUE(train(again, cluster).ok());
      EXPECT_EQ(cluster.finishes.back().outcome(), "succeeded");
      EXPECT_EQ(end(cluster), end(whole)) << step;
    }
  }
}

// What each checkpoint's step was evaluated to, and why it was written.
std::string told(const MemoryCluster& cluster) {
  std::string text;
  for (const proto::CheckpointManifest& each : cluster.checkpoints) {
    text += fmt::format("{} {} {}\n", each.why(), each.state().step(),
                        each.has_validation_loss() ? fmt::to_string(each.validation_loss()) : "-");
  }
  return text;
}

// One that only its interval asks for may be left out, which is told, while the one before is
// still being stored.
bool left_out(const MemoryCluster& cluster, int64_t step) {
  const bool there = std::ranges::any_of(
      cluster.checkpoints, [&](const auto& each) { return each.state().step() == step; });
  return !there && std::ranges::any_of(cluster.events, [&](const auto& event) {
    return event.type() == "checkpoint_skipped" && event.step() == step;
  });
}

TEST_F(LeftEvaluation, WhatImprovesIsKeptWhereTheJobKeepsItsBest) {
  write_rows(5);
  for (const MeshDegrees mesh : {MeshDegrees{1, 1, 1}, MeshDegrees{2, 1, 1}}) {
    for (const double delta : {0.0, 1e6}) {
      proto::LaunchRecord best = job(mesh, 1);
      proto::JobSpec& spec = *best.mutable_spec();
      spec.mutable_training()->set_steps(5);
      spec.mutable_training()->mutable_early_stop()->set_min_delta(delta);
      spec.mutable_checkpoint()->set_keep_best(true);
      spec.mutable_checkpoint()->set_every_steps(3);
      MemoryCluster cluster;
      ASSERT_TRUE(train(best, cluster).ok());
      std::string expected;
      double lowest = 0;
      for (const proto::MetricRecord& record : cluster.metrics) {
        const auto found = record.values().find("validation_loss");
        if (found == record.values().end()) continue;
        const bool improves = record.step() == 1 || found->second < lowest - delta;
        if (improves) lowest = found->second;
        const char* why = record.step() == 5 ? "end" : improves ? "best" : "interval";
        if (!improves && record.step() != 3 && record.step() != 5) continue;
        if (why == std::string_view("interval") && left_out(cluster, record.step())) continue;
        expected += fmt::format("{} {} {}\n", why, record.step(), found->second);
      }
      EXPECT_EQ(told(cluster), expected) << delta;
      EXPECT_THAT(expected, ::testing::StartsWith("best 1 "));

      spec.mutable_checkpoint()->set_keep_best(false);
      MemoryCluster plain;
      ASSERT_TRUE(train(best, plain).ok());
      ASSERT_EQ(plain.checkpoints.size(), 2U);
      EXPECT_EQ(plain.checkpoints[0].why(), "interval");
      EXPECT_TRUE(plain.checkpoints[0].has_validation_loss());
    }
  }
}

// Where the pause came right behind the last one, nothing is told or counted a second time.
TEST_F(LeftEvaluation, OneThatWasDoneAtTheEndIsNotCountedAgain) {
  write_rows(5);
  for (const MeshDegrees mesh : {MeshDegrees{1, 1, 1}, MeshDegrees{2, 1, 1}}) {
    proto::LaunchRecord patient = job(mesh, 4);
    patient.mutable_spec()->mutable_training()->mutable_early_stop()->set_patience(1);
    MemoryCluster whole, cluster;
    ASSERT_TRUE(train(patient, whole).ok());
    cluster.control_at_step = 4;
    cluster.control = proto::CONTROL_KIND_PAUSE;
    ASSERT_TRUE(train(patient, cluster).ok());
    EXPECT_EQ(cluster.finishes.at(0).outcome(), "paused");
    EXPECT_EQ(cluster.finishes.at(0).step(), 4);
    EXPECT_TRUE(cluster.events.empty());
    cluster.control_at_step = -1;
    *patient.mutable_resume() = cluster.checkpoints.back();
    ASSERT_TRUE(train(patient, cluster).ok());
    EXPECT_EQ(end(cluster), end(whole));
    EXPECT_EQ(cluster.finishes.at(1).message(), whole.finishes.at(0).message());
  }
}

// Also where the pause came right behind the evaluation that ends the training.
TEST_F(LeftEvaluation, AJobThatStoppedEarlyStaysSoWhenItGoesOn) {
  write_rows(5);
  proto::LaunchRecord early = job({}, 2);
  proto::TrainingSpec& training = *early.mutable_spec()->mutable_training();
  training.set_steps(40);
  training.mutable_early_stop()->set_patience(1);
  training.mutable_early_stop()->set_min_delta(1e6);
  MemoryCluster cluster;
  cluster.control_at_step = 4;  // the second evaluation improves nothing
  cluster.control = proto::CONTROL_KIND_PAUSE;
  ASSERT_TRUE(train(early, cluster).ok());
  EXPECT_EQ(cluster.finishes.at(0).outcome(), "paused");
  EXPECT_EQ(cluster.finishes.at(0).step(), 4);
  cluster.control_at_step = -1;
  *early.mutable_resume() = cluster.checkpoints.back();
  ASSERT_TRUE(train(early, cluster).ok());
  EXPECT_EQ(cluster.finishes.at(1).outcome(), "succeeded");
  EXPECT_EQ(cluster.finishes.at(1).step(), 4);
  EXPECT_TRUE(cluster.finishes.at(1).message().starts_with("stopped early"));

  early.clear_resume();  // patience that ends at the last step cuts nothing off
  training.set_steps(4);
  ASSERT_TRUE(train(early, cluster).ok());
  EXPECT_EQ(cluster.finishes.at(2).step(), 4);
  EXPECT_EQ(cluster.finishes.at(2).message(), "");
}

}  // namespace
}  // namespace weft
