// XLNet trains on a GPU made of fibers: passes that are recorded and queued as a whole give the
// bits of the same steps without, and follow the CPU's; on two ranks, too.
#include "tests/testing/cuda_on_cpu/machine.h"
#include "tests/testing/nccl_rank.h"
#include "tests/worker/trainer/gpu_passes_fixture.h"

namespace weft {
namespace {

constexpr const char* kClasses =
    "{name: kind, type: sequence_classification, labels: 3, data: {train: obj-rows, format: "
    "jsonl}}";
constexpr const char* kWords =
    "{name: lm, type: permutation_lm, mask_rate: 0.25, data: {train: obj-text, format: text}}";

// Three micro-batches a step, of which the last is smaller.
class GpuRelative : public GpuPasses {
 protected:
  static constexpr int kSteps = 5;
  void SetUp() override {
    GpuPasses::SetUp();
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
    return train(record(job, mesh), kSteps, recorded, place);
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
