// The forward and backward pass of a micro-batch on a GPU as one piece of work (a CUDA graph): what
// a pass queues is recorded once a shape has been seen twice, and from then on queued as a whole,
// without the model's code, the tape and the allocator in between.
//
// What differs from step to step is in device memory when a recording runs: the tokens, those of an
// encoder-decoder's source, what is said of predictions and the labels are copied to where they
// were when it was made, the seed of the backward pass is one of them, and random numbers take the
// step's seed (TokenBatch::random) from the GPU.
//
// A pass that cannot be recorded (it reads from the GPU or writes to it half-way, communicates,
// needs memory that is not reserved yet), or whose memory holds something else at the moment, runs
// as it is; why is logged at level debug.
//
// Thread safety: the rank's compute thread. Ownership: refers to the rank. Invariants: 1. a replay
// computes what the pass would, bit for bit. 2. at most kRecordingsMax recordings are kept, at most
// kShapesMax shapes remembered.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/cuda/backend.h"
#include "worker/models/parameter.h"
#include "worker/tasks/task.h"

namespace weft {

class RecordedPasses {
 public:
  static constexpr size_t kRecordingsMax = 16, kShapesMax = 64;
  static constexpr int64_t kSeenFirst = 2;   // passes of a shape before it is recorded
  static constexpr int64_t kIdleRuns = 256;  // a recording that was not used for so long makes room
  static constexpr int kConflictsMax = 4;    // in a row, before it is made anew

  // Null on the CPU. parameters: all whose gradients passes add to.
  static std::unique_ptr<RecordedPasses> create(Rank& rank, std::span<const Parameter> parameters);
  ~RecordedPasses();

  // From a batch to its loss, a scalar; adds gradients to the parameters.
  using Pass = std::function<Tensor(const TaskBatch& batch)>;
  // What pass(batch) does. `task`: which of the job's, for a shape is one of a task.
  Tensor run(int64_t task, TaskBatch batch, const Pass& pass);

  // Does work() in the memory that passes have, so that it is not reserved twice.
  void as_it_is(const std::function<void()>& work);

  struct Counts {
    int64_t eager = 0, recorded = 0, replayed = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  struct Shape;
  RecordedPasses(Rank& rank, std::span<const Parameter> parameters);
  Shape& shape_of(int64_t task, const TaskBatch& batch);
  bool has_room();
  void record(Shape& shape, const TaskBatch& batch, const Pass& pass);
  Tensor replay(Shape& shape, TaskBatch& batch);
  std::vector<const void*> addresses() const;

  Rank& rank_;
  cuda::Backend& gpu_;
  const std::vector<Parameter> parameters_;
  std::vector<std::unique_ptr<Shape>> shapes_;
  int64_t runs_ = 0;
  Counts counts_;
};

}  // namespace weft
