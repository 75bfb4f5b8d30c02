// The stacks of this process's threads while they go on: a thread that has said that it answers is
// asked by a signal, whose handler walks the thread's stack into memory that was set aside before.
//
// The handler runs on a stack of its own: generated code (oneDNN's products) keeps data below its
// stack pointer, which a handler on the same stack would overwrite. Threads without such a stack
// are never signalled and have no frames.
//
// Thread safety: any thread; one question at a time (others wait). Ownership: values. A thread that
// cannot run a handler (stopped by a debugger, stuck in the kernel) has no frames either. Functions
// are named where the dynamic symbol table names them (programs export theirs), others by object
// and offset.
#pragma once

#include <vector>

#include "proto/train.pb.h"

namespace weft {

// The calling thread answers from now on, until it ends.
void answer_with_stack();
// Of all threads of the process, those that do not answer by name only.
std::vector<proto::ThreadStack> thread_stacks();

}  // namespace weft
