#include "tests/gpu/bench_program.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "proto/base/status.h"
#include "tests/gpu/gpu_bench.h"

namespace weft::gpu {
namespace {

// A number above 0.
double number(const std::string& option, const std::string& value) {
  char* end = nullptr;
  const double number = std::strtod(value.c_str(), &end);
  if (value.empty() || *end != '\0' || !(number > 0)) {
    throw StatusError(Status::invalid(option, value, "must be a number above 0"));
  }
  return number;
}

struct Arguments {
  BenchOptions bench;
  bool json = false;
};

Arguments read(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    const auto value = [&]() -> std::string {
      if (++i < argc) return argv[i];
      throw StatusError(Status::invalid(option, "", "needs a value"));
    };
    if (option == "--only") {
      arguments.bench.only = value();
    } else if (option == "--list") {
      arguments.bench.list = true;
    } else if (option == "--runs") {
      arguments.bench.runs = static_cast<int>(std::ceil(number(option, value())));
    } else if (option == "--seconds") {
      arguments.bench.sample_seconds = number(option, value());
    } else if (option == "--json") {
      arguments.json = true;
    } else if (option == "--profile") {
      arguments.bench.profile = true;
    } else if (option == "--any-order") {
      arguments.bench.any_order = true;
    } else if (option == "--small") {
      arguments.bench.smallest = true;
    } else {
      throw StatusError(Status::invalid("argument", option, "is none of bench's"));
    }
  }
  return arguments;
}

void print_json(const Measure& measure) {
  const nlohmann::json row = {{"name", measure.name},       {"seconds", measure.seconds},
                              {"rate", measure.rate},       {"unit", measure.unit},
                              {"samples", measure.samples}, {"losses", measure.losses},
                              {"error", measure.error},     {"peak_bytes", measure.peak_bytes}};
  std::printf("%s\n", row.dump().c_str());
}

void print_line(const Measure& measure) {
  if (!measure.error.empty()) {
    std::printf("%-52s %s\n", measure.name.c_str(), measure.error.c_str());
    return;
  }
  std::printf("%-52s %10.4f ms %10.1f %s", measure.name.c_str(), 1e3 * measure.seconds,
              measure.rate, measure.unit.c_str());
  if (measure.peak_bytes > 0) {
    std::printf("  %.1f GB", 1e-9 * static_cast<double>(measure.peak_bytes));
  }
  std::printf("\n");
}

}  // namespace

int bench_program(int argc, char** argv) {
  const Arguments arguments = read(argc, argv);
  int failed = 0;
  run_bench(arguments.bench, [&](const Measure& measure) {
    if (arguments.bench.list) {
      std::printf("%s\n", measure.name.c_str());
    } else {
      arguments.json ? print_json(measure) : print_line(measure);
    }
    failed += measure.error.empty() ? 0 : 1;
    std::fflush(stdout);
  });
  return failed == 0 ? 0 : 1;
}

}  // namespace weft::gpu
