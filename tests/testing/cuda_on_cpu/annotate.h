// Tells the address sanitizer of each switch between stacks; nothing in other builds.
//
// A switch is: `target.enter(own)` on the stack that is left, then `arrived(own, came_from)` as the
// first thing when control is back on a stack.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace weft::cuda_on_cpu {

struct FiberNote {
  void* saved = nullptr;         // the sanitizer's own, while the stack is left
  const void* bottom = nullptr;  // the lowest address
  size_t bytes = 0;

#if defined(__SANITIZE_ADDRESS__)
  void of_stack(void* top, size_t size) {
    bottom = static_cast<char*>(top) - size;
    bytes = size;
  }
  void enter(FiberNote& own) { __sanitizer_start_switch_fiber(&own.saved, bottom, bytes); }
  static void leave_for_good(FiberNote& target) {
    __sanitizer_start_switch_fiber(nullptr, target.bottom, target.bytes);
  }
  // own is null on a new stack; came_from learns the bounds of the stack that was left, if given.
  static void arrived(FiberNote* own, FiberNote* came_from) {
    const void* left = nullptr;
    size_t size = 0;
    __sanitizer_finish_switch_fiber(own == nullptr ? nullptr : own->saved, &left, &size);
    if (came_from == nullptr) return;
    came_from->bottom = left;
    came_from->bytes = size;
  }
#else
  void of_stack(void*, size_t) {}
  void enter(FiberNote&) {}
  static void leave_for_good(FiberNote&) {}
  static void arrived(FiberNote*, FiberNote*) {}
#endif
};

}  // namespace weft::cuda_on_cpu
