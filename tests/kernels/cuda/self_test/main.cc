// Prints what the self-test found, an instruction a line; exit status 1 if one is not as it is
// meant, 2 if there is no device to ask.
#include <cstdio>

#include "proto/base/status.h"
#include "tests/kernels/cuda/self_test/self_test.h"

int main() {
  try {
    int wrong = 0;
    for (const weft::cuda::SelfTestResult& result : weft::cuda::self_test()) {
      const bool right = result.finding.empty();
      wrong += right ? 0 : 1;
      std::printf("%-42s %s\n", result.instruction.c_str(),
                  right ? "as on the CPU" : result.finding.c_str());
    }
    return wrong == 0 ? 0 : 1;
  } catch (const weft::StatusError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
