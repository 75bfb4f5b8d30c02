// How far a job is, in one line: for a terminal with a bar that fits its width, else plain.
//
// The speed is Job.tokens_per_second, which the job's first rank smooths over about the last 20
// seconds, evaluations included, and the time left is that of the steps left at this speed
// (worker/smoothed_speed.h); both are left out while the job does not train. A job of a few tasks
// has the newest loss of each: "loss lm 3.21 kind 0.58".
//
// Thread safety: pure functions. Ownership: values.
#pragma once

#include <string>

#include "proto/job.pb.h"

namespace weft::cli {

// "job-... running step 120/300 loss 3.21 1234 tokens/s 1m20s left (reason)"
std::string progress_text(const proto::Job& job);

// "running [######......] 40% step 120/300 loss 3.21 1234 tokens/s 1m20s left", at most `columns`
// wide: what does not fit goes, the least important first.
std::string progress_bar(const proto::Job& job, int columns);

}  // namespace weft::cli
