// How fast training goes, smoothed: exponentially weighted sums of seconds, steps and tokens, in
// which a second weighs e times less than one 20 seconds later. Until 20 seconds have passed it is
// nearly the plain mean; afterwards it follows a change within about that time.
//
// Thread safety: none. Ownership: a value.
// Invariant: both figures come from the same sums, so the time left is the steps left at the speed
// that is shown.
#pragma once

#include <cmath>
#include <cstdint>

namespace weft {

class SmoothedSpeed {
 public:
  static constexpr double kSeconds = 20;

  // `seconds` went by, in which `steps` and `tokens` were trained; an evaluation trains none.
  void add(double seconds, int64_t steps, int64_t tokens) {
    const double keep = std::exp(-seconds / kSeconds);
    seconds_ = seconds_ * keep + seconds;
    steps_ = steps_ * keep + static_cast<double>(steps);
    tokens_ = tokens_ * keep + static_cast<double>(tokens);
  }

  // 0: nothing was added yet.
  double tokens_per_second() const { return seconds_ > 0 ? tokens_ / seconds_ : 0; }
  double seconds_for(int64_t steps) const {
    return steps_ > 0 ? static_cast<double>(steps) * seconds_ / steps_ : 0;
  }

 private:
  double seconds_ = 0, steps_ = 0, tokens_ = 0;
};

}  // namespace weft
