#include "tests/gpu/bench_program.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "tests/gpu/gpu_bench.h"

namespace weft::gpu {
namespace {

struct Arguments {
  BenchOptions bench;
  bool json = false;
};

// Of --help or of what is wrong; none: go on.
std::optional<int> parse(Arguments& arguments, int argc, char** argv) {
  BenchOptions& bench = arguments.bench;
  CLI::App app("Rates of a GPU: products, attention, what only moves bytes, steps of GPT-2.");
  app.add_option("--only", bench.only, "Rows whose name this expression is found in");
  app.add_flag("--list", bench.list, "Their names alone; needs no GPU");
  app.add_option("--runs", bench.runs, "Samples of a row")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--seconds", bench.sample_seconds, "That a sample lasts")
      ->check(CLI::Range(1e-6, 60.0))
      ->capture_default_str();
  app.add_flag("--json", arguments.json, "One JSON object a line, with all samples");
  app.add_flag("--profile", bench.profile,
               "One run a row between cudaProfilerStart and cudaProfilerStop, for a profiler");
  app.add_flag("--any-order", bench.any_order, "As jobs with training.reproducible: none");
  app.add_flag("--small", bench.smallest, "Sizes that show that it runs, not how fast");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return {};
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
  Arguments arguments;
  if (const auto status = parse(arguments, argc, argv)) return *status;
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
