// How fast one core of this machine is, for the planner.
// Thread safety: one thread. Takes about 0.2 s of it.
#pragma once

#include "worker/planner/step_time.h"

namespace weft {

// Rates of large products and copies by this thread's time, the best of some tries each, so that
// neither other programs nor other threads show; the link is left as it is.
HostSpeed measure_speed();

}  // namespace weft
