// The order in which a GPU that is made of fibers runs what is queued; a real one has its own.
#pragma once

#include <cstdint>

namespace weft {

// Another order for each number.
void vary_schedule(uint64_t number);

}  // namespace weft
