// The benchmark of a GPU runs, at its smallest, on one that is made of fibers.
#include "tests/gpu/gpu_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "kernels/cuda/device.h"
#include "kernels/ops/ops.h"
#include "proto/base/status.h"
#include "tests/gpu/bench_program.h"
#include "tests/gpu/repeated.h"

namespace weft::gpu {
namespace {

std::map<std::string, Measure> run(BenchOptions options) {
  options.smallest = true;
  options.sample_seconds = 1e-6;
  std::map<std::string, Measure> measures;
  run_bench(options, [&](const Measure& measure) {
    EXPECT_EQ(measure.error, "") << measure.name;
    EXPECT_TRUE(measures.emplace(measure.name, measure).second) << measure.name;
  });
  return measures;
}

TEST(GpuBench, MeasuresEachKind) {
  const std::string only = "^(product|copy|gelu|layer_norm|softmax)|^(attention|gpt2 124M) BF16";
  std::set<std::string> units, names;
  for (const auto& [name, measure] : run({.only = only, .runs = 3})) {
    EXPECT_EQ(measure.samples.size(), 3U) << name;
    EXPECT_EQ(measure.seconds, [&] {
      std::vector<double> sorted = measure.samples;
      std::sort(sorted.begin(), sorted.end());
      return sorted[1];
    }()) << name;
    EXPECT_GT(measure.seconds, 0) << name;
    EXPECT_GT(measure.rate, 0) << name;
    units.insert(measure.unit);
    names.insert(name);
  }
  EXPECT_EQ(units, (std::set<std::string>{"GB/s", "TFLOP/s", "tokens/s"}));
  std::set<std::string> listed;
  for (const auto& [name, measure] : run({.only = only, .list = true})) {
    EXPECT_TRUE(measure.samples.empty());
    listed.insert(name);
  }
  EXPECT_EQ(listed, names);
}

TEST(GpuBench, RunsTheRowsThatAreAskedFor) {
  const auto measures = run({.only = "^copy (BF16|F32)", .runs = 1});
  EXPECT_EQ(measures.size(), 2U);
  EXPECT_THROW(run({.only = "("}), StatusError);
}

TEST(GpuBench, StepsStartFromTheSameWeightsRecordedOrNot) {
  const auto recorded = run({.only = "gpt2 124M BF16.*graphs", .runs = 1});
  const auto eager = run({.only = "gpt2 124M BF16.*eager", .runs = 1});
  ASSERT_EQ(recorded.size(), 1U);
  ASSERT_EQ(eager.size(), 1U);
  const Measure &one = recorded.begin()->second, &other = eager.begin()->second;
  EXPECT_EQ(one.losses, other.losses);
  ASSERT_EQ(one.losses.size(), 5U);
  EXPECT_NEAR(one.losses[0], std::log(64), 0.1);
  EXPECT_LT(one.losses[4], one.losses[0]);
  EXPECT_GT(one.peak_bytes, 0);
}

TEST(GpuBench, RepeatedValuesAreUniformAndRepeat) {
  auto memory = cuda::make_allocator(0);
  ASSERT_TRUE(memory);
  const Tensor x = Tensor::empty(**memory, {2, Repeated::kBlock + 5});
  Repeated values(**memory);
  values.fill(x, Repeated::kBlock - 3, 2);
  const std::vector<float> all = x.to_vector<float>();
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < Repeated::kBlock; ++i) {
    const auto value = static_cast<double>(all[static_cast<size_t>(i)]);
    EXPECT_LE(std::abs(value), 2 * std::sqrt(3));
    sum += value;
    squares += value * value;
  }
  EXPECT_NEAR(sum / Repeated::kBlock, 0, 0.01);
  EXPECT_NEAR(squares / Repeated::kBlock, 4, 0.02);
  EXPECT_TRUE(std::equal(all.begin() + Repeated::kBlock, all.end(), all.begin()));
  // The hash of 0 is 0.
  EXPECT_FLOAT_EQ(all[3], static_cast<float>(-2 * std::sqrt(3)));
}

TEST(GpuBench, WhatIsNoArgumentIsNamed) {
  const auto status_of = [](const std::vector<const char*>& words) {
    std::vector<char*> argv;
    for (const char* word : words) argv.push_back(const_cast<char*>(word));
    return bench_program(static_cast<int>(argv.size()), argv.data());
  };
  for (const std::vector<const char*>& words : std::vector<std::vector<const char*>>{
           {"bench", "--runs", "0"}, {"bench", "--runs"}, {"bench", "--fast"}}) {
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(status_of(words), 2);
    EXPECT_THAT(::testing::internal::GetCapturedStderr(), ::testing::HasSubstr(words[1]));
  }
  EXPECT_EQ(status_of({"bench", "--help"}), 0);
}

}  // namespace
}  // namespace weft::gpu
