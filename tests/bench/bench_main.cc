// weft-bench NAME key=value...: makes the body NAME, says "ready", and then for each line N on
// stdin runs it N times and says how many seconds one run took; with cpu_time=1 of the process's
// processor time. A training step also answers "state": the loss of its last run, and by how many
// bytes the process has grown at its peak since before it was made.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>

#include "proto/base/status.h"
#include "tests/bench/bench.h"

namespace weft::bench {

Tensor Machine::random(Shape shape, uint64_t seed, bool leaf) {
  Tensor x = Tensor::empty(*allocator, shape);
  for (int64_t i = 0; i < x.elements(); ++i) {
    x.data<float>()[i] = 2 * uniform_at({seed, 0}, static_cast<uint64_t>(i)) - 1;
  }
  return x.set_requires_grad(leaf);
}

Step make(const std::string& name, const Options& options) {
  const auto step = step_makers().find(name);
  if (step != step_makers().end()) return step->second(options);
  for (const auto* makers : {&op_makers(), &memory_makers(), &product_makers(), &file_makers()}) {
    const auto found = makers->find(name);
    if (found != makers->end()) return {found->second(options), nullptr};
  }
  throw StatusError(Status::invalid("NAME", name, "is no benchmark"));
}

double seconds(bool cpu_time) {
  timespec now{};
  clock_gettime(cpu_time ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

int serve(const Step& step, int64_t bytes_before, bool cpu_time) {
  step.run();  // the first run fills caches and sizes the allocator
  std::ofstream("/proc/self/clear_refs") << 5;  // the peak is that of the steady state
  std::puts("ready");
  std::fflush(stdout);
  for (std::string request; std::cin >> request;) {
    if (request == "state" && step.loss) {
      std::printf("%.9g %lld\n", step.loss(),
                  static_cast<long long>(process_bytes("VmHWM") - bytes_before));
    } else {
      const int64_t count = std::strtoll(request.c_str(), nullptr, 10);
      const double start = seconds(cpu_time);
      for (int64_t i = 0; i < count; ++i) step.run();
      std::printf("%.9g\n", (seconds(cpu_time) - start) / static_cast<double>(count));
    }
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace weft::bench

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: weft-bench NAME key=value...\n", stderr);
    return 2;
  }
  try {
    const weft::bench::Options options(argc - 2, argv + 2);
    const int64_t before = weft::bench::process_bytes("VmRSS");
    return weft::bench::serve(weft::bench::make(argv[1], options), before,
                              options.flag("cpu_time"));
  } catch (const weft::StatusError& error) {
    std::fprintf(stderr, "weft-bench: %s\n", error.status().to_string().c_str());
    return 1;
  }
}
