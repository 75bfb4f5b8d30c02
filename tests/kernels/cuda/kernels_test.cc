// Every case passes under every order of blocks and threads; every mutant fails its case.
#include <gtest/gtest.h>

#include "proto/base/status.h"
#include "tests/kernels/cuda/cases.h"
#include "tests/testing/cuda_on_cpu/machine.h"

namespace weft::cuda {
namespace {

using cuda_on_cpu::Order;
using cuda_on_cpu::Schedule;

const std::vector<Schedule> kSchedules{{Order::kForward}, {Order::kReverse}, {Order::kSeeded, 1}};

std::string verdict(const Case& judge, const KernelSet& kernels, const Schedule& schedule) {
  cuda_on_cpu::set_schedule(schedule);
  try {
    return judge.run(kernels);
  } catch (const cuda_on_cpu::Fault& fault) {
    return fault.what();
  } catch (const StatusError& error) {
    return error.what();
  }
}

class Kernels : public ::testing::TestWithParam<Case> {};
TEST_P(Kernels, AgreeWithTheCpuOpsInEveryOrder) {
  for (const Schedule& schedule : kSchedules) {
    EXPECT_EQ(verdict(GetParam(), KernelSet(), schedule), "") << name_of(schedule);
  }
}
INSTANTIATE_TEST_SUITE_P(All, Kernels, ::testing::ValuesIn(cases()),
                         [](const auto& tested) { return tested.param.name; });

class Mutants : public ::testing::TestWithParam<Mutant> {};
TEST_P(Mutants, AreCaught) {
  const Mutant& mutant = GetParam();
  KernelSet kernels;
  mutant.apply(kernels);
  for (const Case& judge : cases()) {
    if (judge.name != mutant.caught_by) continue;
    for (const Schedule& schedule : kSchedules) {
      const std::string finding = verdict(judge, kernels, schedule);
      if (finding.empty()) continue;
      RecordProperty("finding", finding);
      return;
    }
    FAIL() << judge.name << " cannot tell it from the original";
  }
  FAIL() << "no case is named " << mutant.caught_by;
}
INSTANTIATE_TEST_SUITE_P(All, Mutants, ::testing::ValuesIn(mutants()),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace weft::cuda
