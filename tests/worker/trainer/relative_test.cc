// XLNet learns to tell texts apart: on every mesh that it has, level of ZeRO and kind of
// recomputation alike, and in half precision nearly so.
#include "tests/worker/trainer/task_fixture.h"

namespace weft {
namespace {

constexpr const char* kRelative = R"(
name: relative
kind: pretrain
model:
  family: xlnet
  config: {n_layer: 2, n_head: 3, d_model: 24, d_inner: 40, vocab_size: 257}
tokenizer: {type: byte}
tasks:
  - {name: kind, type: sequence_classification, labels: 3,
     data: {train: obj-rows, validation: obj-rows, format: jsonl}}
training:
  {steps: 24, batch_size: 5, micro_batch_size: 2, sequence_length: 20, seed: 17,
   optimizer: {type: adamw, learning_rate: 1.0e-2, weight_decay: 0.01, betas: [0.9, 0.95]},
   schedule: {type: cosine, warmup_steps: 5}, evaluate_every: 12}
checkpoint: {every_steps: 7}
)";

class Relative : public TaskTrainer {
 protected:
  Relative() : TaskTrainer(kRelative) {}

  std::map<int64_t, double> losses(const proto::LaunchRecord& launch) {
    MemoryCluster cluster;
    run(launch, cluster);
    std::map<int64_t, double> found;
    for (const auto& [step, loss] : cluster.losses()) found[step] = loss;
    return found;
  }
};

TEST_F(Relative, EveryMeshLevelAndRecomputationHasTheSameCurve) {
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
      EXPECT_NEAR(found.at(step), loss, 1e-4 * std::max(loss, 1e-2)) << at.name() << " " << step;
    }
  }
}

TEST_F(Relative, HalfPrecisionIsNear) {
  const auto one = losses(launch({}));
  proto::LaunchRecord half = launch({2, 1, 2}, 3);
  half.mutable_spec()->mutable_training()->set_precision(proto::PRECISION_BF16);
  const auto found = losses(half);
  EXPECT_NEAR(found.begin()->second, one.begin()->second, 0.03 * one.begin()->second);
  EXPECT_LT(found.rbegin()->second, 0.7 * found.begin()->second);
}

TEST_F(Relative, ResumesBitForBit) { expect_resumes_bit_for_bit({9}); }

}  // namespace
}  // namespace weft
