// weft-bench-beat CORE: says "ready" and wakes on this core every ms, before all that is not of
// real time, until the process that started it ends: the kernel then looks who is to run there
// (spare_cores.py).
#include <sched.h>
#include <sys/prctl.h>
#include <time.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

int main(int count, char** texts) {
  if (count != 2) {
    std::fputs("usage: weft-bench-beat CORE\n", stderr);
    return 2;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  cpu_set_t core;
  CPU_ZERO(&core);
  CPU_SET(static_cast<size_t>(std::strtoul(texts[1], nullptr, 10)), &core);
  const sched_param first{1};
  if (sched_setaffinity(0, sizeof core, &core) != 0 ||
      sched_setscheduler(0, SCHED_FIFO, &first) != 0) {
    std::perror("weft-bench-beat: sched_setscheduler");
    return 1;
  }
  std::puts("ready");
  std::fflush(stdout);
  constexpr timespec kBeat{0, 1'000'000};
  while (true) clock_nanosleep(CLOCK_MONOTONIC, 0, &kBeat, nullptr);
}
