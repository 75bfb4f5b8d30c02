// Learning-rate schedules with linear warm-up, as transformers' get_cosine_, get_linear_ and
// get_constant_schedule_with_warmup: the first of all updates is step 0 and has rate 0 when there
// is a warm-up; cosine and linear reach 0 at step `total_steps`.
//
// Thread safety: a value.
#pragma once

#include <cstdint>

namespace weft {

enum class ScheduleShape { kCosine, kLinear, kConstant };

struct Schedule {
  ScheduleShape shape = ScheduleShape::kCosine;
  double peak = 0;
  int64_t warmup_steps = 0;
  int64_t total_steps = 0;

  // Rate of update `step`, counted from 0.
  double rate(int64_t step) const;
};

}  // namespace weft
