#include "tests/bench/training_step.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <optional>

#include "kernels/tensor/transfer.h"
#include "proto/base/activity.h"
#include "worker/models/hf_folder.h"

namespace weft::bench {
namespace {

template <typename T>
T take(Result<T> result) {
  if (!result) throw StatusError(std::move(result).error());
  return std::move(*result);
}

std::string gpt2_config(const Options& options) {
  return fmt::format(
      R"({{"model_type": "gpt2", "n_layer": {}, "n_head": {}, "n_embd": {}, "n_positions": {},
          "vocab_size": {}, "resid_pdrop": {}, "embd_pdrop": {}, "attn_pdrop": {}}})",
      options.integer("layers"), options.integer("heads"), options.integer("hidden"),
      options.integer("tokens"), options.integer("vocabulary"), options.text("dropout"),
      options.text("dropout"), options.text("dropout"));
}

std::string llama_config(const Options& options) {
  return fmt::format(
      R"({{"model_type": "llama", "num_hidden_layers": {}, "num_attention_heads": {},
          "num_key_value_heads": {}, "hidden_size": {}, "intermediate_size": {},
          "max_position_embeddings": {}, "vocab_size": {}, "attention_dropout": {}}})",
      options.integer("layers"), options.integer("heads"), options.integer("key_heads"),
      options.integer("hidden"), options.integer("inner"), options.integer("tokens"),
      options.integer("vocabulary"), options.text("dropout"));
}

ZeroOptions zero_of(const Options& options) {
  ZeroOptions zero;
  if (options.has("zero")) zero.level = static_cast<int>(options.integer("zero"));
  if (options.has("bucket_bytes")) zero.bucket_bytes = options.integer("bucket_bytes");
  return zero;
}

}  // namespace

std::vector<int64_t> step_ids(const Options& options) {
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < options.integer("batch") * options.integer("tokens"); ++i) {
    ids.push_back((i * 7919 + i * i % 31) % options.integer("vocabulary"));
  }
  return ids;
}

TrainingStep::TrainingStep(const Options& options, Mesh mesh, std::unique_ptr<Allocator> memory,
                           const Fill& fill)
    : rank_{std::move(memory),
            std::make_unique<ThreadPool>(static_cast<int>(options.integer("threads")),
                                         processors(options.integer("threads"))),
            std::move(mesh), Logger()} {
  flush_denormals();
  const bool llama = options.has("key_heads");
  const ModelFamily& family = *find_family(llama ? "llama" : "gpt2");
  const ModelConfigPtr config =
      take(family.parse_config(llama ? llama_config(options) : gpt2_config(options)));
  trunk_ = take(family.make_trunk(rank_, config));
  task_ = take(make_task(rank_, "causal_lm", *config, {.name = "lm"}));
  if (options.has("weights")) {
    const HfFolder folder = take(open_hf_folder(options.text("weights")));
    const Status read = load_hf_weights(folder, trunk_->parameters());
    if (!read.ok()) throw StatusError(read);
  } else if (fill) {
    fill(trunk_->parameters());
  } else {
    initialize_parameters(trunk_->parameters(), 1);
  }
  optimizer_ =
      std::make_unique<AdamW>(rank_, trunk_->parameters(), AdamWOptions(),
                              options.flag("bf16") ? DType::kBF16 : DType::kF32, zero_of(options));
  reducer_ = std::make_unique<GradientReducer>(rank_, optimizer_->parameters(),
                                               optimizer_->buckets(), optimizer_->zero_level());
  if (optimizer_->zero_level() == 3) {
    gate_ = std::make_unique<UnitGate>(rank_, *optimizer_);
    trunk_->set_gate(gate_.get());
  } else if (rank_.allocator->device().is_cpu()) {
    const bool alone = rank_.mesh.size(Axis::kTensor) == 1 && rank_.mesh.size(Axis::kSequence) == 1;
    const int64_t rows = part_of(options.integer("batch"), rank_.mesh.size(Axis::kData), 0).length;
    values_ = std::make_unique<ValueGate>(
        *optimizer_, alone, rows * options.integer("tokens") * rank_.mesh.size(Axis::kReplica));
    trunk_->set_gate(values_.get());
  }
  optimizer_->publish();
  rows_.rows = options.integer("batch");
  rows_.tokens = options.integer("tokens");
  rows_.ids = step_ids(options);
}

void TrainingStep::set_recorded(bool on) {
  passes_ = on ? RecordedPasses::create(rank_, optimizer_->parameters()) : nullptr;
}

// The sum of the losses of this rank's labels; adds gradients of batch.seed times that.
Tensor TrainingStep::pass(const TaskBatch& batch) {
  Tape tape(rank_.activity);
  Context cx = rank_.context();
  cx.tape = &tape;
  std::optional<Activity::Phase> phase(std::in_place, rank_.activity, "forward");
  const Tensor sum = task_->loss_sum(cx, *trunk_, batch);
  phase.reset();
  phase.emplace(rank_.activity, "backward");
  optimizer_->finish_values();
  reducer_->arm(tape);
  const bool there = batch.device_seed && batch.device_seed.spec() == sum.spec();
  tape.backward(cx, sum,
                there ? batch.device_seed
                      : Tensor::full(*rank_.allocator, sum.shape(), batch.seed, sum.dtype()));
  return sum.detach();
}

void TrainingStep::run() {
  const double share = 1 / static_cast<double>(task_->label_count(rows_));
  const int64_t most = part_of(rows_.rows, rank_.mesh.size(Axis::kData), 0).length *
                       part_of(rows_.tokens, rank_.mesh.size(Axis::kSequence), 0).length;
  reducer_->begin(optimizer_->parameters(), {.tokens = most, .accumulated = false});
  if (values_) values_->begin(first_tokens(rank_.mesh, rows_, 0));
  ++steps_;
  std::vector<Tensor> losses;  // read at the end: reading waits for the device
  for (const Part& part : micro_batches(rank_.mesh, rows_.rows, 0)) {
    TaskBatch batch = task_->assemble(rows_, part);
    batch.tokens.training = true;
    batch.tokens.random = {steps_, 0};
    batch.seed = share;
    if (!rank_.allocator->device().is_cpu()) {
      batch.device_seed = Tensor::full(*rank_.allocator, Shape{}, share);
    }
    losses.push_back(passes_ ? passes_->run(0, std::move(batch),
                                            [&](const TaskBatch& each) { return pass(each); })
                             : pass(batch));
  }
  optimizer_->finish_values();  // of a rank without rows
  std::optional<Activity::Phase> phase(std::in_place, rank_.activity, "gradients");
  reducer_->flush();
  reducer_->finish();
  if (gate_) gate_->close();
  double own_loss = 0;
  for (const Tensor& each : losses) own_loss += read_scalar(each) * share;
  if (rank_.mesh.index(Axis::kTensor) > 0) own_loss = 0;  // the others repeat it
  Tensor sums = Tensor::from<double>(*rank_.allocator, {2},
                                     std::array<double, 2>{own_loss, reducer_->squares()});
  rank_.mesh.axis(Axis::kWorld).all_reduce(sums, ReduceOp::kSum);
  const std::vector<double> total = sums.to_vector<double>();
  loss_ = total[0];
  phase.reset();
  phase.emplace(rank_.activity, "optimizer");
  optimizer_->step(*reducer_, 1e-4, clip_factor(std::sqrt(total[1]), 1.0));
}

}  // namespace weft::bench
