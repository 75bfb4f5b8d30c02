// Our side of tests/bench/run.sh: a body per name, timed on request beside its peer.
//
// Thread safety: one thread. Ownership: a body owns all that it needs.
// Invariants: 1. making a body does all work that is not to be timed. 2. every call of a body does
// the same work.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/autograd/tape.h"
#include "kernels/ops/random.h"

namespace weft::bench {

// The arguments key=value of the command line.
class Options {
 public:
  Options(int count, char** texts);
  explicit Options(std::map<std::string, std::string> values) : values_(std::move(values)) {}
  int64_t integer(const std::string& key) const;   // required
  std::string text(const std::string& key) const;  // required
  bool has(const std::string& key) const;
  bool flag(const std::string& key) const;  // "1"; absent: false

 private:
  std::map<std::string, std::string> values_;
};

using Body = std::function<void()>;
using Maker = std::function<Body(const Options&)>;

// A training step beside a peer's: both train the same weights on the same tokens.
struct Step {
  Body run;
  std::function<double()> loss;  // of the last run, before its update
};
using StepMaker = std::function<Step(const Options&)>;

// Of a pool of so many threads: each on a processor of its own, as a launch record pins a rank's;
// none of a single thread, or where there are not so many. Threads that sleep between two short ops
// may else wake on one processor and stay there (libgomp's spin meanwhile).
std::vector<int> processors(int64_t threads);

// What a rank has, without a mesh.
struct Machine {
  explicit Machine(int64_t threads) : pool(static_cast<int>(threads), processors(threads)) {}
  std::unique_ptr<Allocator> allocator = make_caching_allocator();
  ThreadPool pool;
  Tape tape;
  Context plain{*allocator, pool};
  Context recording{*allocator, pool, &tape};

  // Uniform in [-1, 1).
  Tensor random(Shape shape, uint64_t seed, bool leaf);
};

const std::map<std::string, Maker>& op_makers();        // bench_ops.cc
const std::map<std::string, Maker>& memory_makers();    // bench_memory.cc
const std::map<std::string, Maker>& product_makers();   // bench_products.cc
const std::map<std::string, Maker>& file_makers();      // bench_files.cc
const std::map<std::string, StepMaker>& step_makers();  // bench_training.cc
Step make_encoder_step(const Options& options);         // bench_encoder.cc

// A line "NAME: N kB" of /proc/self/status, in bytes.
int64_t process_bytes(const std::string& name);

// Token ids of every training row, the same as peer.py's.
std::vector<int64_t> step_ids(const Options& options);

}  // namespace weft::bench
