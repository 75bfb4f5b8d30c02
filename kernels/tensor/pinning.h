// Which processors threads run on.
//
// Thread safety: each call is about the calling thread.
#pragma once

namespace weft {

// The calling thread runs on that processor alone; on one that is not ours to use, where the system
// puts it.
void pin_to(int cpu);
// Lets the calling thread run wherever the one that was pinned first might before: a thread begins
// with the pin of the one that starts it.
void run_anywhere();

}  // namespace weft
