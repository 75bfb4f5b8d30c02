// How large the models of topology_test.cc are: what a real GPU trains in seconds would take fibers
// hours.
#pragma once

#include <cstdint>
#include <ostream>
#include <vector>

namespace weft::gpu {

// GPT-2; no dropout of attention's weights goes to the kernels of sm_90a where those can run.
struct TopologySize {
  const char* name;  // letters and digits
  int64_t layers, heads, hidden, tokens, rows, blocks;
  double attention_dropout;
};

inline void PrintTo(const TopologySize& size, std::ostream* out) { *out << size.name; }

// Written once for each program.
std::vector<TopologySize> topology_sizes();

}  // namespace weft::gpu
