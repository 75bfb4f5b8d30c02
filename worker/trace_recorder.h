// The trace of some steps on this rank, begun and ended at the same steps on all ranks, as rank 0
// hears of the request.
//
// Thread safety: the rank's compute thread. Ownership: refers to rank and progress, which outlive
// it.
#pragma once

#include "worker/agreement.h"
#include "worker/progress.h"

namespace weft {

class TraceRecorder {
 public:
  TraceRecorder(Rank& rank, Progress& progress) : rank_(rank), progress_(progress) {}

  // What this rank brings to the agreement at a step's boundary.
  TraceWish wish();
  // What all agreed on; `step` steps are done. A collective where something new is begun. A
  // recording that is complete is sent; another request takes the place of one under way.
  void boundary(const TraceWish& agreed, int64_t step);
  // The training ends after `step`: what there is is sent.
  void finish(int64_t step);

 private:
  void send(int64_t step);

  Rank& rank_;
  Progress& progress_;
  TraceWish asked_;    // newest request that this rank heard of
  TraceWish current_;  // newest that was begun
  bool recording_ = false;
  int64_t first_step_ = 0;  // of the recording
};

}  // namespace weft
