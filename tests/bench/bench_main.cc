// weft-bench NAME key=value...: makes the body NAME, says "ready", and then for each line N on
// stdin runs it N times and says how many seconds one run took; with cpu_time=1 of the process's
// processor time.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>

#include "proto/base/status.h"
#include "tests/bench/bench.h"

namespace weft::bench {

Options::Options(int count, char** texts) {
  for (int i = 0; i < count; ++i) {
    const std::string text = texts[i];
    const size_t equals = text.find('=');
    if (equals == std::string::npos) {
      throw StatusError(Status::invalid("argument", text, "must be key=value"));
    }
    values_[text.substr(0, equals)] = text.substr(equals + 1);
  }
}

std::string Options::text(const std::string& key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) {
    throw StatusError(Status::invalid("argument", key, "is missing"));
  }
  return found->second;
}

int64_t Options::integer(const std::string& key) const {
  return std::strtoll(text(key).c_str(), nullptr, 10);
}

bool Options::flag(const std::string& key) const {
  const auto found = values_.find(key);
  return found != values_.end() && found->second == "1";
}

Tensor Machine::random(Shape shape, uint64_t seed, bool leaf) {
  Tensor x = Tensor::empty(*allocator, shape);
  for (int64_t i = 0; i < x.elements(); ++i) {
    x.data<float>()[i] = 2 * uniform_at({seed, 0}, static_cast<uint64_t>(i)) - 1;
  }
  return x.set_requires_grad(leaf);
}

Body make_body(const std::string& name, const Options& options) {
  for (const auto* makers : {&op_makers(), &memory_makers(), &training_makers(), &file_makers()}) {
    const auto found = makers->find(name);
    if (found != makers->end()) return found->second(options);
  }
  throw StatusError(Status::invalid("NAME", name, "is no benchmark"));
}

double seconds(bool cpu_time) {
  timespec now{};
  clock_gettime(cpu_time ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

int serve(const Body& body, bool cpu_time) {
  body();  // the first run fills caches and sizes the allocator
  std::puts("ready");
  std::fflush(stdout);
  for (int64_t count = 0; std::cin >> count;) {
    const double start = seconds(cpu_time);
    for (int64_t i = 0; i < count; ++i) body();
    std::printf("%.9g\n", (seconds(cpu_time) - start) / static_cast<double>(count));
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
    return weft::bench::serve(weft::bench::make_body(argv[1], options), options.flag("cpu_time"));
  } catch (const weft::StatusError& error) {
    std::fprintf(stderr, "weft-bench: %s\n", error.status().to_string().c_str());
    return 1;
  }
}
