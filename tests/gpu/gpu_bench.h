// Rates of what a training step on a GPU is made of, and of whole steps of GPT-2.
//
// Thread safety: one call at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace weft::gpu {

struct Measure {
  std::string name;
  std::vector<double> samples;  // seconds of one run
  double seconds = 0;           // their median
  double rate = 0;
  std::string unit;            // of the rate: "TFLOP/s", "GB/s", "tokens/s"
  std::vector<double> losses;  // of a step: the first ones
  int64_t peak_bytes = 0;      // of a step: of GPU memory in use
  std::string error;           // it could not be measured
};

struct BenchOptions {
  bool smallest = false;        // sizes that show that it runs, not how fast
  std::string only;             // a regular expression that the names of rows are searched for
  bool list = false;            // nothing is run: measures are names alone
  bool profile = false;         // one run a row, between cudaProfilerStart and cudaProfilerStop
  bool any_order = false;       // as jobs with training.reproducible: none compute
  int runs = 7;                 // samples of a row
  double sample_seconds = .03;  // that a sample lasts, of one run at least
};

// `row` hears of each measure as it is made. Throws StatusError where there is no GPU, and on an
// expression that is none.
void run_bench(const BenchOptions& options, const std::function<void(const Measure&)>& row);

}  // namespace weft::gpu
