// The case table of the ops on a GPU: outputs and gradients in fp32 and in half types against the
// CPU's in float64, relative to the CPU's own error in the same precision. On one that is made of
// fibers the streams run late and in several orders, so what reads too early shows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/tensor/transfer.h"
#include "proto/base/status.h"
#include "tests/kernels/cuda/schedule.h"
#include "tests/kernels/op_table/run.h"

namespace weft::op_table {
namespace {

// Larger ones are for speed's sake left to smaller kin of the same row.
constexpr int64_t kElementsMax = 3000;
constexpr double kSmall = 0.1;  // as op_table_test.cc

struct Values {
  std::vector<std::vector<double>> parts;  // outputs, then gradients (a missing one is empty)
};

Values values_on_host(Context& cx, const Outcome& outcome) {
  Values values;
  for (const auto* tensors : {&outcome.outputs, &outcome.gradients}) {
    for (const Tensor& x : *tensors) {
      values.parts.push_back(x ? values_of(cx, x) : std::vector<double>());
    }
  }
  return values;
}

class GpuTable : public ::testing::TestWithParam<Row> {
 protected:
  GpuTable() : gpu_(1, take_gpu()) {}
  static std::unique_ptr<Allocator> take_gpu() {
    auto memory = cuda::make_allocator(0);
    if (!memory) throw StatusError(memory.error());
    return std::move(*memory);
  }
  static bool is_small(const Case& item) {
    return std::all_of(item.inputs.begin(), item.inputs.end(),
                       [](const Input& input) { return input.shape.elements() <= kElementsMax; });
  }
  // Attention to heads without features, which no model has, is for CPUs.
  static bool has_kernel(const Case& item) {
    return GetParam().op != "relative_attention" || item.inputs[0].shape[3] > 0;
  }

  void expect_agreement(const Case& item, DType dtype, Layout layout, double epsilon) {
    Context here = cpu_.context, there = gpu_.context;
    std::vector<Tensor> wide = draw(here, item, dtype);
    if (layout == Layout::kExpanded) wide = expanded_values(here, item, wide);
    const std::vector<Tensor> narrow = in_dtype(here, wide, dtype);
    std::vector<Tensor> sent;
    for (size_t i = 0; i < narrow.size(); ++i) {
      const Tensor x = to_allocator(narrow[i], *gpu_.allocator);
      const bool stays = layout == Layout::kExpanded && item.inputs[i].draw == Draw::kGiven;
      sent.push_back(stays ? x : lay_out(there, x, layout));
    }
    const Values want = values_on_host(here, run(cpu_, item, GetParam().f, wide));
    const Values own = values_on_host(here, run(cpu_, item, GetParam().f, narrow));
    const Values got = values_on_host(there, run(gpu_, item, GetParam().f, sent));
    ASSERT_EQ(got.parts.size(), want.parts.size());
    for (size_t i = 0; i < got.parts.size(); ++i) {
      const double scale = std::max(kSmall, largest_of(want.parts[i]));
      const double bar =
          2 * difference(own.parts[i], want.parts[i]) + GetParam().ulps * epsilon * scale;
      EXPECT_LE(difference(got.parts[i], want.parts[i]), bar)
          << "part " << i << " of " << item.to_string() << name_of(layout);
    }
  }

  // Case by case another layout, and of a case for each precision another.
  void check_row(DType dtype, double epsilon, size_t first_layout) {
    constexpr Layout kGpuLayouts[] = {Layout::kContiguous, Layout::kTransposed, Layout::kSliced,
                                      Layout::kStrided, Layout::kExpanded};
    size_t number = 0;
    for (const Case& item : GetParam().cases) {
      if (!is_small(item) || !has_kernel(item)) continue;
      vary_schedule(number);
      expect_agreement(item, dtype, kGpuLayouts[(first_layout + number) % std::size(kGpuLayouts)],
                       epsilon);
      ++number;
      if (HasFailure()) return;
    }
    EXPECT_GT(number, 0U);
  }

  const Bench cpu_{1};
  Bench gpu_;
};

TEST_P(GpuTable, FollowsTheCpu) { check_row(DType::kF32, 0x1p-23, 0); }
TEST_P(GpuTable, FollowsTheCpuInBf16) { check_row(DType::kBF16, 0x1p-8, 1); }
TEST_P(GpuTable, FollowsTheCpuInFp16) { check_row(DType::kF16, 0x1p-11, 3); }
INSTANTIATE_TEST_SUITE_P(All, GpuTable, ::testing::ValuesIn(rows()),
                         [](const auto& item) { return item.param.op; });

}  // namespace
}  // namespace weft::op_table
