// Whole training on a GPU made of fibers: the forward and backward passes of each family and task,
// clipping and AdamW, in fp32 and bf16, against what transformers computed in float64; and on
// several such GPUs that cut the model between them over NCCL.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "cluster/comm/threads/thread_ranks.h"
#include "kernels/cuda/device.h"
#include "tests/testing/cuda_on_cpu/machine.h"
#include "tests/testing/nccl_rank.h"
#include "worker/golden/golden.h"

namespace weft::golden {
namespace {

// The case with its first `steps` updates only.
Case read(const std::string& name, size_t steps) {
  Result<Case> golden = read_case(WEFT_SOURCE_DIR "/tests/fixtures/golden/" + name);
  if (!golden) throw StatusError(golden.error());
  Trajectory& trajectory = golden->trajectory;
  trajectory.steps.resize(std::min(steps, trajectory.steps.size()));
  trajectory.accumulated.resize(std::min<size_t>(1, trajectory.accumulated.size()));
  return std::move(*golden);
}

void expect_within(const Report& report) {
  EXPECT_GT(report.deviations.size(), 20U);
  for (const Deviation& deviation : report.deviations) {
    // These follow the whole trajectory.
    if (deviation.what.starts_with("norm after") || deviation.what == "loss_on_case_after")
      continue;
    EXPECT_TRUE(deviation.within()) << report.name << ": " << deviation.what << " is off by "
                                    << deviation.error << ", bar " << deviation.bar;
  }
}

Report run(const Case& golden, MeshDegrees mesh, DType precision) {
  Report report;
  run_on_threads(
      mesh,
      [&](Rank& rank) {
        Report mine = run_case(rank, golden, precision);
        if (rank.mesh.index(Axis::kWorld) == 0) report = std::move(mine);
      },
      on_gpu);
  return report;
}

TEST(GpuGolden, Gpt2InSinglePrecision) {
  cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kSeeded, 3});
  expect_within(run(read("gpt2-causal", 2), {}, DType::kF32));
}

TEST(GpuGolden, PackedDocuments) {
  cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kReverse});
  expect_within(run(read("gpt2-packed", 1), {}, DType::kF32));
}

TEST(GpuGolden, Classification) {
  cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kForward});
  expect_within(run(read("gpt2-sequence", 1), {}, DType::kF32));
}

TEST(GpuGolden, Gpt2InBf16) {
  cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kForward});
  expect_within(run(read("gpt2-causal", 1), {}, DType::kBF16));
}

TEST(GpuGolden, Gpt2CutBetweenTwo) {
  cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kForward});
  expect_within(run(read("gpt2-causal", 1), {.tensor = 2}, DType::kF32));
}

TEST(GpuGolden, GroupedQueries) {
  cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kSeeded, 5});
  expect_within(run(read("llama-gqa", 1), {}, DType::kF32));
  expect_within(run(read("llama-gqa", 1), {}, DType::kBF16));
}

// Each head of keys on two.
TEST(GpuGolden, GroupedQueriesCutBetweenFour) {
  cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kForward});
  expect_within(run(read("llama-gqa", 1), {.tensor = 4}, DType::kF32));
}

// The other families and tasks, and adapters, one update each.
class GpuGoldenCase : public ::testing::TestWithParam<const char*> {};

TEST_P(GpuGoldenCase, IsWithinTheAim) {
  cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kForward});
  expect_within(run(read(GetParam(), 1), {}, DType::kF32));
}

std::string case_name(const ::testing::TestParamInfo<const char*>& param) {
  std::string text = param.param;
  std::ranges::replace(text, '-', '_');
  return text;
}

INSTANTIATE_TEST_SUITE_P(Each, GpuGoldenCase,
                         ::testing::Values("llama-rope-llama3", "mistral-window", "qwen2-tied",
                                           "qwen3-qknorm", "bert-sequence", "distilbert-sequence",
                                           "bert-masked", "roberta-masked", "bert-token",
                                           "bert-choice", "bert-question", "bert-embedding",
                                           "vit-image", "lora-gpt2", "lora-llama-rslora",
                                           "dora-llama"),
                         case_name);

// An encoder and a decoder, of texts and of recordings.
class GpuGoldenTargets : public GpuGoldenCase {};

TEST_P(GpuGoldenTargets, AreWithinTheAim) {
  cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kSeeded, 7});
  expect_within(run(read(GetParam(), 1), {}, DType::kF32));
}

TEST_P(GpuGoldenTargets, AreWithinTheAimCutBetweenTwo) {
  cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kForward});
  expect_within(run(read(GetParam(), 1), {.tensor = 2}, DType::kF32));
}

// Of each row, of source and target, each rank has a part.
TEST_P(GpuGoldenTargets, AreWithinTheAimWhereTokensAreShared) {
  cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kForward});
  expect_within(run(read(GetParam(), 1), {.sequence = 2}, DType::kF32));
}

INSTANTIATE_TEST_SUITE_P(Each, GpuGoldenTargets,
                         ::testing::Values("t5-relu", "t5-v1_1", "whisper-speech"), case_name);

TEST(GpuGolden, TargetsInBf16) {
  cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kReverse});
  for (const char* name : {"t5-v1_1", "whisper-speech"}) {
    expect_within(run(read(name, 1), {}, DType::kBF16));
  }
}

// Scores with terms by distance and segment, of all queries at their tokens' places, and of what is
// predicted behind them.
class GpuGoldenRelative : public ::testing::TestWithParam<const char*> {};

TEST_P(GpuGoldenRelative, IsWithinTheAim) {
  cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kSeeded, 11});
  expect_within(run(read(GetParam(), 2), {}, DType::kF32));
}

TEST_P(GpuGoldenRelative, IsWithinTheAimInBf16) {
  cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kReverse});
  expect_within(run(read(GetParam(), 1), {}, DType::kBF16));
}

TEST_P(GpuGoldenRelative, IsWithinTheAimCutBetweenTwo) {
  cuda_on_cpu::set_schedule({cuda_on_cpu::Order::kForward});
  expect_within(run(read(GetParam(), 1), {.tensor = 2}, DType::kF32));
}

INSTANTIATE_TEST_SUITE_P(Each, GpuGoldenRelative,
                         ::testing::Values("xlnet-sequence", "xlnet-permutation"), case_name);

}  // namespace
}  // namespace weft::golden
