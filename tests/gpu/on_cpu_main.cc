// weft-gpu's bench on a GPU that is made of fibers, for the test of bench.py.
#include <cstdio>
#include <string_view>

#include "proto/base/status.h"
#include "tests/gpu/bench_program.h"

int main(int argc, char** argv) {
  if (argc < 2 || std::string_view(argv[1]) != "bench") {
    std::fprintf(stderr, "usage: weft-gpu-on-cpu bench OPTIONS\n");
    return 2;
  }
  try {
    return weft::gpu::bench_program(argc - 1, argv + 1);
  } catch (const weft::StatusError& error) {
    std::fprintf(stderr, "weft-gpu-on-cpu: %s\n", error.what());
    return 2;
  }
}
