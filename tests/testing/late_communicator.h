// Communicators whose transfers do not depend on how busy the machine is.
//
// late: they end as late as they may: what a rank starts is done, on the rank's own thread, only
// when it waits for it or for something started later, or calls a collective. Everything that can
// be under way at once is, in every run; whoever measures memory sees the most.
// prompt: what a rank starts has begun before it goes on.
//
// Thread safety, order, errors: as Communicator. Ownership: owns the transport. What was started
// and never waited for is done when the communicator goes.
#pragma once

#include <memory>

#include "worker/parallel/communicator.h"

namespace weft::testing {

// `world`, and through it all that is split from it.
std::unique_ptr<Communicator> late(std::unique_ptr<Communicator> world);
std::unique_ptr<Communicator> prompt(std::unique_ptr<Communicator> world);

}  // namespace weft::testing
