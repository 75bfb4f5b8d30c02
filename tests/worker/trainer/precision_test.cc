// Training in half precision and with recomputed activations, beside the fp32 run.
#include <cmath>

#include "tests/worker/trainer/trainer_fixture.h"
#include "worker/setup.h"
#include "worker/step.h"

namespace weft {
namespace {

std::string with(const std::string& setting) {
  std::string job = kTwoTasks;
  const std::string before = "seed: 17,";
  return job.insert(job.find(before), setting + ", ");
}

class Precision : public Trainer {
 protected:
  // The largest relative distance of two loss curves.
  static double distance(const std::map<int64_t, double>& a, const std::map<int64_t, double>& b) {
    EXPECT_EQ(a.size(), b.size());
    double most = 0;
    for (const auto& [step, loss] : a) {
      most = std::max(most, std::abs(loss - b.at(step)) / std::abs(b.at(step)));
    }
    return most;
  }

  double peak(const std::string& job, MeshDegrees mesh = {}) {
    MemoryCluster cluster;
    EXPECT_TRUE(train(record(job, mesh), cluster).ok());
    double most = 0;
    for (const auto& metric : cluster.metrics) {
      const auto found = metric.values().find("memory_peak_bytes");
      if (found != metric.values().end()) most = std::max(most, found->second);
    }
    return most;
  }

  // Killed twice, each time resumed: the curve is that of the run without a break.
  void expect_exact_resume(const std::string& job, MeshDegrees mesh) {
    const auto whole = losses(job, mesh);
    MemoryCluster cluster;
    proto::LaunchRecord attempt = record(job, mesh);
    for (const int64_t death : {17, 33, -1}) {
      cluster.die_after_step = death;
      if (!cluster.checkpoints.empty()) *attempt.mutable_resume() = cluster.checkpoints.back();
      if (death < 0) {
        ASSERT_TRUE(train(attempt, cluster).ok());
      } else {
        EXPECT_THROW(static_cast<void>(train(attempt, cluster)), StatusError);
      }
    }
    EXPECT_EQ(cluster.losses(), whole);
  }
};

// 50 steps with dropout and two tasks. bf16 has 8 bits: one rounding is off by 2^-9 at most.
TEST_F(Precision, Bf16FollowsFp32) {
  const auto fp32 = losses(kTwoTasks, {}), bf16 = losses(with("precision: bf16"), {});
  const double off = distance(bf16, fp32);
  EXPECT_LT(off, 0.02);
  EXPECT_GT(off, 1e-5);  // it is another arithmetic
}

// Gamma begins at 1, beside which neither half type has 1.0001.
TEST_F(Precision, ASmallUpdateOfANormReachesTheForwardPass) {
  for (const char* precision : {"precision: bf16", "precision: fp16"}) {
    double losses[2] = {};
    for (const bool moved : {false, true}) {
      on_ranks(record(with(precision), {}), [&](Rank& rank, const auto& spec, Training& training) {
        for (size_t i = 0; moved && i < training.optimizer->states().size(); ++i) {
          if (!training.optimizer->parameters()[i].info.name.ends_with("ln_1.weight")) continue;
          const Singles& master = training.optimizer->states()[i].master;
          std::vector<float> gamma = master.to_vector();
          gamma[7] += 1e-4F;
          master.set(gamma.data());
        }
        training.optimizer->publish();
        losses[moved] = run_step(rank, spec, training, training.tasks[0], 0).loss;
      });
    }
    EXPECT_NE(losses[0], losses[1]) << precision;
    EXPECT_NEAR(losses[0], losses[1], 1e-2) << precision;
  }
}

TEST_F(Precision, Bf16MeshesAgree) {
  const std::string job = in_22_steps(with("precision: bf16"));
  const auto one = losses(job, {});
  for (const MeshDegrees mesh : {MeshDegrees{2, 1, 1}, MeshDegrees{1, 2, 1}, MeshDegrees{1, 1, 2},
                                 MeshDegrees{2, 1, 2}, MeshDegrees{1, 2, 2}}) {
    EXPECT_LT(distance(losses(job, mesh), one), 0.02)
        << mesh.data << "x" << mesh.sequence << "x" << mesh.tensor;
  }
}

TEST_F(Precision, ResumesInBf16BitForBit) {
  expect_exact_resume(with("precision: bf16"), {});
  expect_exact_resume(with("precision: bf16"), {1, 1, 2});
}

TEST_F(Precision, Bf16CheckpointsHoldTheMasters) {
  MemoryCluster cluster;
  ASSERT_TRUE(train(record(with("precision: bf16"), {}), cluster).ok());
  for (const proto::TensorEntry& entry : cluster.checkpoints.back().tensors()) {
    EXPECT_EQ(entry.dtype(), "F32");
    if (entry.name() != "transformer.wte.weight" || entry.role() != proto::TENSOR_ROLE_WEIGHT) {
      continue;
    }
    const std::string& bytes = cluster.chunks.at(entry.tiles(0).chunks(0).hash());
    int finer = 0;  // values that bf16 does not have
    for (size_t at = 0; at < bytes.size(); at += 4) finer += bytes[at] != 0 || bytes[at + 1] != 0;
    EXPECT_GT(finer, static_cast<int>(bytes.size() / 8));
  }
}

TEST_F(Precision, Fp16TrainsWithAScaledLoss) {
  const std::string job = with("precision: fp16");
  MemoryCluster cluster;
  ASSERT_TRUE(train(record(job, {}), cluster).ok());
  EXPECT_LT(distance(cluster.losses(), losses(kTwoTasks, {})), 0.01);
  EXPECT_GE(cluster.metrics.back().values().count("loss_scale") +
                cluster.metrics[cluster.metrics.size() - 3].values().count("loss_scale"),
            1U);
  EXPECT_GT(cluster.checkpoints.back().state().loss_scale(), 0);
  expect_exact_resume(job, {1, 1, 2});
}

// A gradient that fp16 cannot hold: the step is left out on every rank, the scale is halved, and
// the optimizer counts the updates that it made, over a resume too.
TEST_F(Precision, AnOverflowLeavesTheStepOut) {
  const proto::LaunchRecord launch = record(with("precision: fp16"), {2, 1, 1});
  on_ranks(launch, [](Rank& rank, const auto& spec, Training& training) {
    training.loss_scale = LossScale(LossScale::kMax, 0);
    const std::vector<float> before = training.optimizer->states()[0].master.to_vector();
    int left_out = 0;
    bool applied = false;
    for (int i = 0; i < 24 && !applied; ++i) {
      const StepResult result = run_step(rank, spec, training, training.tasks[0], 1e-3);
      applied = result.applied;
      left_out += applied ? 0 : 1;
      EXPECT_EQ(training.optimizer->states()[0].master.to_vector() == before, !applied);
    }
    EXPECT_TRUE(applied);
    EXPECT_GT(left_out, 0);
    EXPECT_EQ(training.loss_scale->scale(), std::ldexp(LossScale::kMax, -left_out));
    EXPECT_EQ(training.optimizer->states()[0].updates, 1);
  });
}

constexpr const char* kDeep = R"(
name: deep
kind: pretrain
model:
  family: gpt2
  config: {n_layer: 6, n_head: 2, n_embd: 32, n_positions: 64, vocab_size: 257,
           resid_pdrop: 0.1, embd_pdrop: 0.1, attn_pdrop: 0.1}
tokenizer: {type: byte}
tasks: [{type: causal_lm, data: {train: obj-text, format: text}}]
training: {steps: 6, batch_size: 8, sequence_length: 64, seed: 17, SETTING
           optimizer: {learning_rate: 1.0e-3}}
)";

std::string deep(const std::string& setting) {
  std::string job = kDeep;
  return job.replace(job.find("SETTING"), 7, setting);
}

TEST_F(Precision, RecomputedActivationsGiveTheSameLossesInLessMemory) {
  const std::string none = deep(""), full = deep("activation_checkpointing: full,");
  const std::string selective = deep("activation_checkpointing: selective,");
  for (const MeshDegrees mesh : {MeshDegrees{}, MeshDegrees{1, 1, 2}, MeshDegrees{1, 2, 1}}) {
    const auto expected = losses(none, mesh);
    EXPECT_LT(distance(losses(full, mesh), expected), 1e-5);
    EXPECT_LT(distance(losses(selective, mesh), expected), 1e-5);
  }
  const double kept = peak(none), some = peak(selective), least = peak(full);
  EXPECT_LT(some, 0.85 * kept);
  EXPECT_LT(least, 0.7 * some);
}

TEST_F(Precision, Bf16KeepsLessThanFp32) {
  EXPECT_LT(peak(deep("precision: bf16,")), 0.9 * peak(deep("")));
}

// A real step, forward, backward and update: once its shape has been seen twice, all its memory
// comes from what the allocator holds.
TEST_F(Precision, ASteadyStepMakesNoSystemCall) {
  for (const char* setting : {"", "precision: bf16,", "activation_checkpointing: full,"}) {
    const proto::LaunchRecord launch = record(deep(setting), {});
    on_ranks(launch, [&](Rank& rank, const auto& spec, Training& training) {
      const auto step = [&] { run_step(rank, spec, training, training.tasks[0], 1e-3); };
      step();
      step();
      const AllocatorStats before = rank.allocator->stats();
      for (int i = 0; i < 5; ++i) step();
      const AllocatorStats after = rank.allocator->stats();
      EXPECT_EQ(after.system_calls, before.system_calls) << setting;
      EXPECT_EQ(after.live_bytes, before.live_bytes) << setting;
      EXPECT_GE(after.fragmentation, 0);
      EXPECT_LE(after.fragmentation, 1);
    });
  }
}

}  // namespace
}  // namespace weft
