// The stacks of this process's threads while they go on: each thread is asked by a signal, whose
// handler walks its own stack into memory that was set aside before.
//
// Thread safety: one call at a time (others wait). Ownership: values. A thread that cannot run a
// handler (stopped by a debugger, stuck in the kernel) has no frames. Functions are named where the
// dynamic symbol table names them (programs export theirs), others by object and offset.
#pragma once

#include <vector>

#include "proto/train.pb.h"

namespace weft {

// Installs the handler and makes what it needs; call it before threads are looked at, once.
void prepare_thread_stacks();
std::vector<proto::ThreadStack> thread_stacks();

}  // namespace weft
