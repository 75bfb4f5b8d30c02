#include "worker/optimizer/loss_scale.h"

#include <algorithm>
#include <cmath>

namespace weft {

bool LossScale::take(double gradient_norm) {
  if (!std::isfinite(gradient_norm)) {
    scale_ = std::max(kMin, scale_ / 2);
    finite_steps_ = 0;
    return false;
  }
  if (++finite_steps_ >= kGrowthSteps) {
    scale_ = std::min(kMax, scale_ * 2);
    finite_steps_ = 0;
  }
  return true;
}

}  // namespace weft
