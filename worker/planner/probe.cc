#include "worker/planner/probe.h"

#include <algorithm>
#include <cstring>
#include <ctime>
#include <functional>
#include <vector>

#include "kernels/cpu/gemm.h"

namespace weft {
namespace {

constexpr double kSeconds = 0.06;  // of one rate
constexpr int64_t kRows = 256, kColumns = 768, kInner = 768;
constexpr size_t kCopyBytes = size_t{64} << 20;  // beyond the caches

// Of this thread, which alone computes, as ranks will have a core to themselves: what other
// programs take of it now would move one rate more than the other, and with that the choice of a
// mesh; and a thread that OpenBLAS starts spins on an idle core.
double processor_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double seconds_of(const std::function<void()>& work) {
  const double start = processor_seconds();
  work();
  return processor_seconds() - start;
}

// The shortest time of as many runs as fit, after one that warms up.
double best_seconds(const std::function<void()>& work) {
  work();
  double best = seconds_of(work);
  for (double spent = best; spent < kSeconds;) {
    const double seconds = seconds_of(work);
    best = std::min(best, seconds);
    spent += seconds;
  }
  return best;
}

template <typename T>
double product_rate() {
  ThreadPool pool(1);
  const std::vector<T> a(static_cast<size_t>(kRows * kInner), T(0.5F));
  const std::vector<T> b(static_cast<size_t>(kInner * kColumns), T(0.25F));
  std::vector<float> out(static_cast<size_t>(kRows * kColumns));
  const double seconds = best_seconds([&] {
    cpu::gemm(pool, kRows, kColumns, kInner, cpu::Matrix<T>{a.data(), kInner, false},
              cpu::Matrix<T>{b.data(), kColumns, false}, out.data(), kColumns);
  });
  return 2.0 * kRows * kColumns * kInner / seconds;
}

}  // namespace

HostSpeed measure_speed() {
  HostSpeed speed;
  speed.flops = product_rate<float>();
  speed.half_flops = product_rate<bfloat16>();
  const std::vector<char> from(kCopyBytes, 1);
  std::vector<char> to(kCopyBytes);
  const double seconds = best_seconds([&] { std::memcpy(to.data(), from.data(), kCopyBytes); });
  speed.memory = 2.0 * kCopyBytes / seconds;
  return speed;
}

}  // namespace weft
