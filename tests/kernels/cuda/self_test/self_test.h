// Each wrapped instruction (kernels/cuda/ptx.cuh) against its meaning on a CPU: what the other
// tests of kernels take for granted. It runs first on a GPU.
//
// Thread safety: one at a time.
#pragma once

#include <string>
#include <vector>

namespace weft::cuda {

struct SelfTestResult {
  std::string instruction;
  std::string finding;  // empty: it is as it is meant
};
std::vector<SelfTestResult> self_test();
// Of sm_90a alone; the above runs it there.
std::vector<SelfTestResult> self_test_sm90();

}  // namespace weft::cuda
