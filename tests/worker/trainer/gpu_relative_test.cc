// XLNet trains on a GPU made of fibers: passes that are recorded and queued as a whole give the
// bits of the same steps without, and follow the CPU's; on two ranks, too.
#include "tests/testing/cuda_on_cpu/machine.h"
#include "tests/testing/nccl_rank.h"
#include "tests/worker/trainer/trainer_fixture.h"
#include "worker/setup.h"
#include "worker/step.h"

namespace weft {
namespace {

constexpr const char* kClasses =
    "{name: kind, type: sequence_classification, labels: 3, data: {train: obj-rows, format: "
    "jsonl}}";
constexpr const char* kWords =
    "{name: lm, type: permutation_lm, mask_rate: 0.25, data: {train: obj-text, format: text}}";

// Three micro-batches a step, of which the last is smaller.
class GpuRelative : public Trainer {
 protected:
  static constexpr int kSteps = 5;
  struct Outcome {
    std::vector<double> losses, norms;
    std::vector<std::vector<float>> weights;
    RecordedPasses::Counts counts;
  };

  void SetUp() override {
    Trainer::SetUp();
    write_typed_tokenizer(WEFT_SOURCE_DIR);
  }

  Outcome run(const std::string& task, const std::string& setting, bool recorded,
              const PlaceRank& place, MeshDegrees mesh = {}) {
    const std::string job = R"(
name: relative
kind: pretrain
model:
  family: xlnet
  config: {n_layer: 1, n_head: 2, d_model: 20, d_inner: 24, vocab_size: 1000, pad_token_id: 996}
tokenizer: {type: tokenizer_json, from: obj-typed}
tasks: [)" + task + R"(]
training:
  {steps: 50, batch_size: 5, micro_batch_size: 2, sequence_length: 8, seed: 17, )" +
                            setting + R"(
   optimizer: {type: adamw, learning_rate: 3.0e-3}}
)";
    Outcome outcome;
    on_ranks(
        record(job, mesh),
        [&](Rank& rank, const auto& spec, Training& training) {
          if (!recorded) training.passes.reset();
          Outcome mine;
          for (int step = 0; step < kSteps; ++step) {
            const StepResult result = run_step(rank, spec, training, training.tasks[0], 3e-3);
            training.state.set_step(step + 1);
            mine.losses.push_back(result.loss);
            mine.norms.push_back(result.gradient_norm);
          }
          for (const AdamW::State& state : training.optimizer->states()) {
            mine.weights.push_back(state.master.to_vector());
          }
          if (training.passes) mine.counts = training.passes->counts();
          if (rank.mesh.index(Axis::kWorld) == 0) outcome = std::move(mine);
        },
        place);
    return outcome;
  }

  static void expect_same(const Outcome& a, const Outcome& b) {
    EXPECT_EQ(a.losses, b.losses);
    EXPECT_EQ(a.norms, b.norms);
    EXPECT_EQ(a.weights, b.weights);
  }
};

TEST_F(GpuRelative, RecordedPassesGiveTheSameBits) {
  for (const char* task : {kClasses, kWords}) {
    for (const auto& [setting, order] :
         {std::pair{"", cuda_on_cpu::Order::kForward},
          {"precision: bf16, activation_checkpointing: full,", cuda_on_cpu::Order::kReverse},
          {"precision: fp16,", cuda_on_cpu::Order::kForward}}) {
      SCOPED_TRACE(std::string(task) + setting);
      cuda_on_cpu::set_schedule({order});
      const Outcome eager = run(task, setting, false, on_gpu);
      const Outcome recorded = run(task, setting, true, on_gpu);
      expect_same(recorded, eager);
      // The first, second and third micro-batch, each from its third pass on.
      EXPECT_EQ(recorded.counts.recorded, 3);
      EXPECT_EQ(recorded.counts.eager, 2 * 3);
      EXPECT_EQ(recorded.counts.replayed, (kSteps - 2) * 3);
      const Outcome cpu = run(task, setting, true, {});
      for (size_t i = 0; i < cpu.losses.size(); ++i) {
        EXPECT_NEAR(recorded.losses[i] / cpu.losses[i], 1, *setting == 0 ? 1e-4 : 2e-2) << i;
      }
    }
  }
}

TEST_F(GpuRelative, TwoRanksFollowTheCpus) {
  for (const char* task : {kClasses, kWords}) {
    for (const MeshDegrees mesh : {MeshDegrees{.data = 2}, MeshDegrees{.tensor = 2}}) {
      cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kSeeded, 5});
      const Outcome gpus = run(task, "", true, on_gpu, mesh), cpus = run(task, "", true, {}, mesh);
      for (size_t i = 0; i < cpus.losses.size(); ++i) {
        EXPECT_NEAR(gpus.losses[i] / cpus.losses[i], 1, 1e-4) << i << task << mesh.data;
      }
    }
  }
}

}  // namespace
}  // namespace weft
