// The training of one attempt on one rank: data -> model -> loss -> optimizer -> checkpoint, step
// by step, from the launch record's job to its outcome. The same call on every rank of the attempt.
//
// Thread safety: the rank's compute thread. Ownership: rank, record and progress outlive the call.
// Invariants: 1. what happens at a step's boundary (control, checkpoint, early stop, end) is agreed
// on by all ranks. 2. an ok return means that the outcome and its checkpoint are durable at the
// coordinator. 3. going on from a checkpoint on the same mesh with the same threads a rank and the
// same build gives the uninterrupted run's numbers bit for bit.
#pragma once

#include "proto/base/status.h"
#include "proto/launch.pb.h"
#include "worker/parallel/rank.h"
#include "worker/progress.h"

namespace weft {

// Returns once the job is finished, paused or cancelled, all told through `progress`. An error is
// the world's (bad data, a lost peer, a refused checkpoint); the caller tells it as RankFailed.
Status run_training(Rank& rank, const proto::LaunchRecord& record, Progress& progress);

// A failure for lack of memory (kResourceExhausted, of whatever thread) with the rank's limit and
// what makes it need less; any other failure, and one that has them, as it is.
Status out_of_memory(Status failure, const proto::LaunchRecord& record, int rank);

}  // namespace weft
