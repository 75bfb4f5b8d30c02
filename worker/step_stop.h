// Whether a step or an evaluation is left half-way, because the job is to be paused or cancelled
// and the rest of it would take long. Nothing of what is left remains; it is done again when the
// job goes on.
//
// Ranks hear of a request at different times, and all have to leave after the same micro-batch. So
// they ask each other, by an all-reduce (max) of two integers, about every Seconds::ask of a step
// or evaluation, as measured: a shorter one has no such question.
//
// Thread safety: the rank's compute thread. Ownership: refers to the rank and the clock.
// Invariants: 1. all ranks ask after the same micro-batches and get the same answer.
#pragma once

#include <cstdint>
#include <functional>

#include "proto/base/clock.h"
#include "proto/train.pb.h"
#include "worker/parallel/rank.h"

namespace weft {

class StepStop {
 public:
  struct Seconds {
    double ask = 5;      // between two questions
    double finish = 10;  // what ends within so long is finished
  };
  // The strongest request that this rank has heard of.
  using Heard = std::function<proto::ControlKind()>;

  // Of the steps of one task or of the evaluations, whose micro-batches take about as long each
  // time. The first one asks after its first micro-batch, to measure it.
  StepStop(Rank& rank, Heard heard, const Clock& clock, Seconds seconds);

  void begin();  // a step or evaluation
  // After `done` micro-batches, from 1, of its `count`; true: leave it. A collective. Never
  // so after the last but one: from there on gradients of a step's ranks without a last one are on
  // their way.
  bool after(int64_t done, int64_t count);

 private:
  Rank& rank_;
  Heard heard_;
  const Clock& clock_;
  Seconds seconds_;
  int64_t between_ = 1;  // micro-batches from one question to the next
  int64_t asked_ = 0;    // the micro-batch of the last one; 0: the start
  Clock::Duration asked_at_{};
};

}  // namespace weft
