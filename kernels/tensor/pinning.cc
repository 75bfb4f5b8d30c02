#include "kernels/tensor/pinning.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <mutex>

namespace weft {
namespace {

struct Anywhere {
  std::once_flag once;
  std::atomic<bool> known = false;
  cpu_set_t set;
};
Anywhere anywhere;

}  // namespace

void pin_to(int cpu) {
  std::call_once(anywhere.once, [] {
    CPU_ZERO(&anywhere.set);
    anywhere.known =
        ::pthread_getaffinity_np(::pthread_self(), sizeof anywhere.set, &anywhere.set) == 0;
  });
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set);
}

void run_anywhere() {
  if (!anywhere.known) return;
  ::pthread_setaffinity_np(::pthread_self(), sizeof anywhere.set, &anywhere.set);
}

}  // namespace weft
