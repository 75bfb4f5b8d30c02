// Training on a GPU made of fibers: passes that are recorded and queued as a whole, beside the same
// steps without, bit for bit, and beside the CPU's.
#include <fmt/format.h>

#include <cmath>
#include <tuple>

#include "cluster/comm/threads/thread_ranks.h"
#include "kernels/cuda/attention_choice.h"
#include "kernels/cuda/device.h"
#include "tests/testing/cuda_on_cpu/machine.h"
#include "tests/testing/nccl_rank.h"
#include "tests/worker/trainer/gpu_passes_fixture.h"

namespace weft {
namespace {

// Two tasks whose steps alternate, dropout, three micro-batches a step, of which the last is
// smaller, and labels of varying number.
constexpr const char* kJob = R"(
name: two
kind: multi_task
model:
  family: gpt2
  config: {n_layer: 1, n_head: 2, n_embd: 16, n_positions: 8, vocab_size: 257,
           resid_pdrop: 0.1, embd_pdrop: 0.1, attn_pdrop: 0.1}
tokenizer: {type: byte}
tasks:
  - {name: lm, type: causal_lm, data: {train: obj-text, format: text}}
  - {name: kind, type: sequence_classification, labels: 3, data: {train: obj-rows, format: jsonl}}
training:
  {steps: 50, batch_size: 5, micro_batch_size: 2, sequence_length: 8, seed: 17, SETTING
   optimizer: {type: adamw, learning_rate: 3.0e-3}}
)";

// An encoder-decoder of texts: sources and targets of few lengths, whose padding differs.
constexpr const char* kWriting = R"(
name: writing
kind: pretrain
model:
  family: t5
  config: {num_layers: 1, num_heads: 2, d_model: 16, d_kv: 8, d_ff: 24, vocab_size: 257,
           relative_attention_num_buckets: 8, relative_attention_max_distance: 8,
           feed_forward_proj: gated-gelu, dropout_rate: 0.1}
tokenizer: {type: byte}
tasks: [{name: write, type: seq2seq, data: {train: obj-targets, format: jsonl}}]
training:
  {steps: 50, batch_size: 5, micro_batch_size: 2, sequence_length: 8, target_length: 6, seed: 17,
   SETTING optimizer: {type: adamw, learning_rate: 3.0e-3}}
)";

// And of recordings, each of 50 tokens.
constexpr const char* kHearing = R"(
name: hearing
kind: pretrain
model:
  family: whisper
  config: {encoder_layers: 1, decoder_layers: 1, encoder_attention_heads: 2,
           decoder_attention_heads: 2, d_model: 16, encoder_ffn_dim: 24, decoder_ffn_dim: 24,
           num_mel_bins: 5, max_source_positions: 50, max_target_positions: 6, vocab_size: 257,
           decoder_start_token_id: 256, pad_token_id: 256, dropout: 0.1, attention_dropout: 0.1,
           activation_dropout: 0.1}
tokenizer: {type: byte}
tasks: [{type: speech_recognition, data: {train: obj-recordings, format: audio}}]
training:
  {steps: 50, batch_size: 5, micro_batch_size: 2, seed: 17, SETTING
   optimizer: {type: adamw, learning_rate: 3.0e-3}}
)";

// A task whose first label is of no class.
class WrongLabel final : public Task {
 public:
  static constexpr int64_t kLabel = 999;
  WrongLabel(Rank& rank, const ModelConfig& config, std::unique_ptr<Task> task)
      : Task(rank, config, {}), task_(std::move(task)) {}
  std::string_view type() const override { return task_->type(); }
  int64_t label_count(const TaskRows& rows) const override { return task_->label_count(rows); }
  TaskBatch assemble(const TaskRows& rows, Part part) const override {
    TaskBatch batch = task_->assemble(rows, part);
    std::vector<int64_t> labels = batch.labels.to_vector<int64_t>();
    labels[0] = kLabel;
    batch.labels = Tensor::from<int64_t>(*rank_.allocator, batch.labels.shape(), labels);
    return batch;
  }
  Tensor loss_sum(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    return task_->loss_sum(cx, trunk, batch);
  }
  Tensor logits(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    return task_->logits(cx, trunk, batch);
  }
  EvaluationSums evaluate(Context& cx, Trunk& trunk, const TaskBatch& batch) override {
    return task_->evaluate(cx, trunk, batch);
  }
  std::map<std::string, double> metrics(const EvaluationSums& sums) const override {
    return task_->metrics(sums);
  }

 private:
  const std::unique_ptr<Task> task_;
};

class GpuTrainer : public GpuPasses {
 protected:
  static std::string job(const std::string& setting, std::string text = kJob) {
    return text.replace(text.find("SETTING"), 7, setting);
  }
  // Of rank 0; `between` is called before each step.
  Outcome run(const std::string& setting, int steps, bool recorded, const PlaceRank& place,
              MeshDegrees mesh = {},
              const std::function<void(Training&, Rank&, int)>& between = {}) {
    proto::LaunchRecord launch = record(job(setting, text_), mesh);
    if (adapts_) {
      launch.mutable_spec()->mutable_parallel()->set_zero(mesh.data > 1 ? 1 : 0);
      proto::AdapterSpec& adapter = *launch.mutable_spec()->mutable_adapter();
      adapter.set_type(proto::ADAPTER_TYPE_LORA);
      adapter.set_rank(3);
      adapter.set_alpha(12);
      adapter.set_dropout(0.1);
      adapter.add_targets("all-linear");
      adapter.set_dora(dora_);
    }
    return train(launch, steps, recorded, place, between);
  }
  // Every third target is shorter than the others, which are cut.
  void add_targets() {
    fs::create_directories(folder_ / "obj-targets");
    std::ofstream rows(folder_ / "obj-targets" / "rows.jsonl");
    for (int i = 0; i < 31; ++i) {
      rows << R"({"text": ")" << std::string(static_cast<size_t>(i % 4 == 0 ? 3 : 12), "xyz"[i % 3])
           << i << R"(", "target": ")" << (i % 3 == 0 ? "no" : "longer ") << i << "\"}\n";
    }
  }
  // Each micro-batch of a step is recorded, in both precisions and on two ranks of data.
  void expect_recordings_of_sources_and_targets();

  std::string text_ = kJob;
  bool adapts_ = false;  // all linear maps, whose trunk is frozen as it was drawn
  bool dora_ = false;
};

TEST_F(GpuTrainer, RecordedPassesGiveTheSameBits) {
  for (const auto& [setting, order] :
       {std::pair{"", cuda_on_cpu::Order::kForward},
        {"precision: bf16, activation_checkpointing: full,", cuda_on_cpu::Order::kReverse}}) {
    cuda_on_cpu::set_schedule({order});
    const Outcome eager = run(setting, 10, false, on_gpu);
    const Outcome recorded = run(setting, 10, true, on_gpu);
    expect_same(recorded, eager);
    // Of each task: first, second and third micro-batch.
    EXPECT_EQ(recorded.counts.recorded, 6);
    EXPECT_EQ(recorded.counts.eager, 2 * 6);
    EXPECT_EQ(recorded.counts.replayed, 10 * 3 - 2 * 6);
    const Outcome cpu = run(setting, 10, true, {});
    for (size_t i = 0; i < cpu.losses.size(); ++i) {
      EXPECT_NEAR(recorded.losses[i] / cpu.losses[i], 1, *setting == 0 ? 1e-4 : 2e-2) << i;
    }
  }
}

TEST_F(GpuTrainer, AdaptersGiveTheSameBitsRecordedAndFollowTheCpu) {
  adapts_ = true;
  for (const std::string setting : {"", "precision: fp16,"}) {
    for (const MeshDegrees mesh : {MeshDegrees{}, MeshDegrees{.data = 2}}) {
      dora_ = setting.empty() == (mesh.data == 2);
      SCOPED_TRACE(setting + "data " + std::to_string(mesh.data));
      const Outcome eager = run(setting, 6, false, on_gpu, mesh);
      const Outcome recorded = run(setting, 6, true, on_gpu, mesh);
      expect_same(recorded, eager);
      EXPECT_GT(recorded.counts.replayed, 0);
      const Outcome cpu = run(setting, 6, true, {}, mesh);
      for (size_t i = 0; i < cpu.losses.size(); ++i) {
        EXPECT_NEAR(recorded.losses[i] / cpu.losses[i], 1, setting.empty() ? 1e-4 : 2e-2) << i;
      }
    }
  }
}

void GpuTrainer::expect_recordings_of_sources_and_targets() {
  for (const auto& [setting, data, order] :
       {std::tuple{"", 1, cuda_on_cpu::Order::kForward},
        {"precision: bf16, activation_checkpointing: full,", 1, cuda_on_cpu::Order::kReverse},
        {"precision: fp16,", 2, cuda_on_cpu::Order::kForward}}) {
    SCOPED_TRACE(setting);
    cuda_on_cpu::set_schedule({order});
    const MeshDegrees mesh{.data = data};
    const Outcome eager = run(setting, 6, false, on_gpu, mesh);
    const Outcome recorded = run(setting, 6, true, on_gpu, mesh);
    expect_same(recorded, eager);
    if (data == 1) {
      EXPECT_EQ(recorded.counts.recorded, 3);  // of two rows, of two more, of the last one
      EXPECT_EQ(recorded.counts.replayed, 6 * 3 - recorded.counts.eager);
    }
    EXPECT_GT(recorded.counts.replayed, 0);
    const Outcome cpu = run(setting, 6, true, {}, mesh);
    for (size_t i = 0; i < cpu.losses.size(); ++i) {
      EXPECT_NEAR(recorded.losses[i] / cpu.losses[i], 1, *setting == 0 ? 1e-4 : 2e-2) << i;
    }
  }
}

TEST_F(GpuTrainer, RecordedPassesReadTheSourcesOfTexts) {
  text_ = kWriting;
  add_targets();
  expect_recordings_of_sources_and_targets();
}

TEST_F(GpuTrainer, RecordedPassesReadRecordings) {
  text_ = kHearing;
  add_recordings(9);
  expect_recordings_of_sources_and_targets();
}

// A step that is left out and a scale that changes go through the same recordings.
TEST_F(GpuTrainer, LeftOutStepsGoThroughTheSameRecordings) {
  const auto begin_high = [](Training& training, Rank&, int step) {
    if (step == 0) training.loss_scale = LossScale(LossScale::kMax, 0);
    if (step == 7) training.loss_scale = LossScale(LossScale::kFirst / 64, 0);
  };
  const Outcome eager = run("precision: fp16,", 10, false, on_gpu, {}, begin_high);
  const Outcome recorded = run("precision: fp16,", 10, true, on_gpu, {}, begin_high);
  EXPECT_FALSE(std::isfinite(eager.norms[0]));
  EXPECT_TRUE(std::isfinite(eager.norms[9]));
  EXPECT_EQ(std::vector(recorded.losses), eager.losses);
  EXPECT_EQ(recorded.weights, eager.weights);
  EXPECT_GT(recorded.counts.replayed, 0);
}

// Memory of passes that somebody holds for a while: those passes run as they are.
TEST_F(GpuTrainer, ARecordingWhoseMemoryIsInUseWaits) {
  std::vector<Tensor> held;
  const auto hold = [&](Training&, Rank& rank, int step) {
    held.clear();
    if (step != 7) return;
    static_cast<cuda::Backend&>(*rank.allocator->stream()).in_pass([&] {
      held = {Tensor::full(*rank.allocator, {1000}, 5), Tensor::full(*rank.allocator, {20'000}, 5)};
    });
  };
  const Outcome eager = run("", 10, false, on_gpu);
  const Outcome recorded = run("", 10, true, on_gpu, {}, hold);
  expect_same(recorded, eager);
  EXPECT_GT(recorded.counts.eager, 2 * 6);
  EXPECT_GT(recorded.counts.replayed, 0);
}

// With two data ranks the last micro-batch of a step communicates, and runs as it is.
TEST_F(GpuTrainer, PassesThatSendGradientsAreNotRecorded) {
  const MeshDegrees mesh{.data = 2};
  const Outcome eager = run("", 8, false, on_gpu, mesh), recorded = run("", 8, true, on_gpu, mesh);
  expect_same(recorded, eager);
  EXPECT_GT(recorded.counts.replayed, 0);
}

// Long enough rows for cuDNN's attention: its gradients are the same in every run, unless the job
// asks for the fastest ones.
TEST_F(GpuTrainer, AJobMayForgoTheSameBits) {
  const auto weights = [&](const std::string& reproducible) {
    const proto::LaunchRecord launch = record(fmt::format(R"(
name: long
kind: pretrain
model: {{family: gpt2, config: {{n_layer: 1, n_head: 1, n_embd: 64, n_inner: 8, n_positions: 512,
        vocab_size: 257, resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0}}}}
tokenizer: {{type: byte}}
tasks: [{{type: causal_lm, data: {{train: obj-text, format: text}}}}]
training: {{steps: 1, batch_size: 1, sequence_length: 512, shuffle: false, precision: bf16,
            reproducible: {}}}
)",
                                                          reproducible),
                                              {});
    const int64_t before = cuda::cudnn_runs();
    std::vector<float> first;
    on_ranks(
        launch,
        [&](Rank& rank, const auto& spec, Training& training) {
          run_step(rank, spec, training, training.tasks[0], 3e-3);
          for (const AdamW::State& state : training.optimizer->states()) {
            const std::vector<float> values = state.master.to_vector();
            first.insert(first.end(), values.begin(), values.end());
          }
        },
        on_gpu);
    EXPECT_EQ(cuda::cudnn_runs(), before + (reproducible == "none" ? 2 : 1));
    return first;
  };
  const std::vector<float> once = weights("mesh");
  EXPECT_EQ(weights("mesh"), once);
  const std::vector<float> fastest = weights("none");
  EXPECT_NE(weights("none"), fastest);
}

// The step throws before it updates anything, whether its passes are recorded by then or not.
TEST_F(GpuTrainer, AWrongLabelEndsTheStepWithTheWordsOfTheCpu) {
  const auto said = [&](const PlaceRank& place, int wrong_step, size_t number) {
    std::string words;
    on_ranks(
        record(job(""), {}),
        [&](Rank& rank, const auto& spec, Training& training) {
          TrainingTask& task = training.tasks[number];
          for (int step = 0; step < wrong_step; ++step) {
            run_step(rank, spec, training, task, 3e-3);
            training.state.set_step(step + 1);
          }
          task.task = std::make_unique<WrongLabel>(rank, *training.config, std::move(task.task));
          const Tensor weight = training.trunk->parameters()[0].value;
          const std::vector<float> before = weight.to_vector<float>();
          try {
            run_step(rank, spec, training, task, 3e-3);
          } catch (const StatusError& error) {
            words = error.status().to_string();
          }
          EXPECT_EQ(weight.to_vector<float>(), before);
          EXPECT_EQ(training.passes != nullptr && training.passes->counts().replayed > 0,
                    place && wrong_step > 0);
        },
        place);
    return words;
  };
  for (const size_t task : {0, 1}) {
    const std::string words = said({}, 0, task);
    EXPECT_NE(words.find(task == 0 ? "[0, 257)" : "[0, 3)"), std::string::npos) << words;
    EXPECT_NE(words.find("999"), std::string::npos) << words;
    EXPECT_EQ(said(on_gpu, 0, task), words);
    EXPECT_EQ(said(on_gpu, 6, task), words);
  }
}

TEST_F(GpuTrainer, TheCpuRecordsNothing) {
  const Outcome outcome = run("", 1, true, {});
  EXPECT_EQ(outcome.counts.eager + outcome.counts.recorded, 0);
}

}  // namespace
}  // namespace weft
