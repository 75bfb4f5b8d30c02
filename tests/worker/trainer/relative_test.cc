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
};

TEST_F(Relative, EveryMeshLevelAndRecomputationHasTheSameCurve) {
  expect_one_curve_of_recomputation(1e-2);
}

TEST_F(Relative, HalfPrecisionIsNear) { expect_half_precision_is_near(); }

TEST_F(Relative, ResumesBitForBit) { expect_resumes_bit_for_bit({9}); }

}  // namespace
}  // namespace weft
