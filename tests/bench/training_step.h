// A training step of GPT-2 or Llama on any mesh, as the trainer does it: forward, backward with the
// gradients travelling beside it, clipping to norm 1, AdamW.
//
// On a GPU passes may be recorded as CUDA graphs, as the trainer's are (worker/recorded_passes.h).
//
// Thread safety: the rank's compute thread; a collective. Options: layers, heads, hidden, tokens,
// batch (rows of all ranks), vocabulary, dropout, threads; key_heads and inner, of Llama; bf16;
// weights (a Hugging Face folder); zero (0 to 3); bucket_bytes.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "tests/bench/bench.h"
#include "worker/optimizer/gradients.h"
#include "worker/optimizer/optimizer.h"
#include "worker/optimizer/unit_gate.h"
#include "worker/optimizer/value_gate.h"
#include "worker/recorded_passes.h"
#include "worker/tasks/task.h"

namespace weft::bench {

class TrainingStep {
 public:
  // Gives the parameters, which are fp32, their first values.
  using Fill = std::function<void(std::span<Parameter>)>;
  // memory: what it computes in, and on. fill: where no option names weights; empty:
  // initialize_parameters.
  TrainingStep(const Options& options, Mesh mesh,
               std::unique_ptr<Allocator> memory = make_caching_allocator(), const Fill& fill = {});
  // Whether passes are recorded from now on, where the device can; at first they are not.
  void set_recorded(bool on);
  void run();
  int64_t replayed() const { return passes_ ? passes_->counts().replayed : 0; }
  double loss() const { return loss_; }  // of the last step, before its update, of the whole batch
  Rank& rank() { return rank_; }

 private:
  Tensor pass(const TaskBatch& batch);
  Rank rank_;
  std::unique_ptr<Trunk> trunk_;
  std::unique_ptr<Task> task_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<GradientReducer> reducer_;
  std::unique_ptr<UnitGate> gate_;
  std::unique_ptr<ValueGate> values_;
  std::unique_ptr<RecordedPasses> passes_;
  TaskRows rows_;
  uint64_t steps_ = 0;
  double loss_ = 0;
};

}  // namespace weft::bench
