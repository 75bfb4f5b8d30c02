// Everything that belongs to one rank and is handed down: memory, threads, mesh, logger. Never in
// the process, so that several ranks can be threads of one test.
//
// Thread safety: one compute thread. Ownership: owns all of its parts.
#pragma once

#include <memory>

#include "kernels/autograd/context.h"
#include "proto/base/log.h"
#include "worker/parallel/mesh.h"

namespace weft {

class Activity;

struct Rank {
  std::unique_ptr<Allocator> allocator;
  std::unique_ptr<ThreadPool> pool;
  Mesh mesh;
  Logger log;
  Activity* activity = nullptr;  // null: nobody asks what this rank does
  int64_t attention_flops = 0;   // so far, of every context()
  // False where a trunk's parameters are gathered when they are used (ZeRO-3): they are made
  // without memory.
  bool keeps_parameters = true;
  // Above 0: topology-invariant (blocked.h), over so many blocks.
  int blocks = 0;
  bool repeatable = true;  // as Context::repeatable

  Context context() {
    Context cx{*allocator, *pool};
    cx.block_count = blocks / mesh.size(Axis::kWorld);
    cx.repeatable = repeatable;
    cx.attention_flops = &attention_flops;
    return cx;
  }
};

}  // namespace weft
