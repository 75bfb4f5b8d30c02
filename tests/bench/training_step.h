// A training step of GPT-2 on any mesh, as the trainer does it: forward, backward with the
// gradients travelling beside it, clipping to norm 1, AdamW.
//
// Thread safety: the rank's compute thread; a collective. Options: layers, heads, hidden, tokens,
// batch (rows of all ranks), vocabulary, dropout, threads; bf16; weights (a Hugging Face folder);
// zero (0 to 3); bucket_bytes.
#pragma once

#include <memory>

#include "tests/bench/bench.h"
#include "worker/optimizer/gradients.h"
#include "worker/optimizer/optimizer.h"
#include "worker/optimizer/unit_gate.h"
#include "worker/tasks/task.h"

namespace weft::bench {

class TrainingStep {
 public:
  // memory: what it computes in, and on.
  TrainingStep(const Options& options, Mesh mesh,
               std::unique_ptr<Allocator> memory = make_caching_allocator());
  void run();
  double loss() const { return loss_; }  // of the last step, before its update, of the whole batch
  Rank& rank() { return rank_; }

 private:
  Rank rank_;
  std::unique_ptr<Trunk> trunk_;
  std::unique_ptr<Task> task_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<GradientReducer> reducer_;
  std::unique_ptr<UnitGate> gate_;
  TaskRows rows_;
  uint64_t steps_ = 0;
  double loss_ = 0;
};

}  // namespace weft::bench
