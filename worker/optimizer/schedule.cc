#include "worker/optimizer/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace weft {

double Schedule::rate(int64_t step) const {
  if (step < warmup_steps) {
    return peak *
           (static_cast<double>(step) / static_cast<double>(std::max<int64_t>(1, warmup_steps)));
  }
  if (shape == ScheduleShape::kConstant) return peak;
  const double rest = static_cast<double>(std::max<int64_t>(1, total_steps - warmup_steps));
  const double progress = static_cast<double>(step - warmup_steps) / rest;
  if (shape == ScheduleShape::kLinear) return peak * std::max(0.0, 1.0 - progress);
  return peak * std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
}

}  // namespace weft
