// Rates of what a training step on a GPU is made of, and of a whole step of GPT-2.
//
// Thread safety: one call at a time.
#pragma once

#include <functional>
#include <string>

namespace weft::gpu {

struct Measure {
  std::string name;
  double seconds = 0;  // of one run; the median
  double rate = 0;
  std::string unit;  // of the rate: "TFLOP/s", "GB/s", "tokens/s"
};

struct BenchOptions {
  bool smallest = false;  // sizes that show that it runs, not how fast
  int runs = 7;           // after one that warms up
};

// `row` hears of each measure as it is made. Throws StatusError where there is no GPU.
void run_bench(const BenchOptions& options, const std::function<void(const Measure&)>& row);

}  // namespace weft::gpu
