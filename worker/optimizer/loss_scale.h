// Dynamic loss scaling (Micikevicius et al. 2018) with the rule of torch.amp.GradScaler: the
// backward pass starts from scale times the loss, so that small gradients survive fp16; a step
// whose gradients are not all finite is left out and halves the scale, and 2000 finite steps in a
// row double it.
//
// Thread safety: a value. Invariants: 1. the scale is a power of two, so that it rounds nothing.
// 2. every rank sees the same gradient norm, and so has the same scale without asking.
#pragma once

#include <cstdint>

namespace weft {

class LossScale {
 public:
  static constexpr double kFirst = 65536;
  static constexpr double kMin = 1, kMax = 16777216;
  static constexpr int64_t kGrowthSteps = 2000;

  LossScale() = default;
  LossScale(double scale, int64_t finite_steps) : scale_(scale), finite_steps_(finite_steps) {}

  double scale() const { return scale_; }
  int64_t finite_steps() const { return finite_steps_; }  // in a row, at this scale

  // After the gradients of a step: whether they may be applied. False: left out, the scale is
  // halved.
  bool take(double gradient_norm);
  // Whether the scale can go no lower: gradients that are not finite then have another reason.
  bool exhausted() const { return scale_ <= kMin; }

 private:
  double scale_ = kFirst;
  int64_t finite_steps_ = 0;
};

}  // namespace weft
