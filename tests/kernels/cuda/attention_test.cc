// The op on a GPU: output and gradients of every case of attention_cases.h in fp32 and bf16,
// against the CPU's in float64, relative to the CPU's own error in the same precision.
#include "kernels/attention/attention.h"

#include <gtest/gtest.h>

#include <array>

#include "kernels/cuda/attention_choice.h"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/device.h"
#include "kernels/ops/ops.h"
#include "kernels/tensor/transfer.h"
#include "tests/kernels/attention_cases.h"
#include "tests/kernels/cuda/schedule.h"
#include "tests/testing/gradient_check.h"

namespace weft::attention {
namespace {

using Results = std::vector<std::vector<double>>;

std::unique_ptr<Allocator> take_gpu() {
  auto memory = cuda::make_allocator(0);
  EXPECT_TRUE(memory) << (memory ? "" : memory.error().to_string());
  return std::move(*memory);
}

struct Place {
  explicit Place(std::unique_ptr<Allocator> of) : memory(std::move(of)) {}
  const std::unique_ptr<Allocator> memory;
  ThreadPool pool{1};
  Context context{*memory, pool};
};

class GpuAttention : public ::testing::TestWithParam<Case> {
 protected:
  // x where that place computes.
  static Tensor sent(const Tensor& x, Place& place) {
    return x ? to_allocator(x, *place.memory) : x;
  }
  // The same, but lying there as [B, T, N, D].
  Tensor sent_by_token(const Tensor& x, Place& place) {
    const std::array turn{0, 2, 1, 3};
    const Tensor turned =
        sent(ops::contiguous(cpu_.context, ops::permute(cpu_.context, x.detach(), turn)), place);
    const int64_t heads = x.dim(1), tokens = x.dim(2), features = x.dim(3);
    const std::array<int64_t, 4> steps{tokens * heads * features, features, heads * features, 1};
    return turned.view(x.shape(), steps, 0);
  }
  Parameters parameters_at(Place& place, const Inputs& on_host, std::span<const Tensor> inputs) {
    Parameters p = parameters_of(cpu_.context, GetParam(), on_host.all);
    Visibility& seen = p.visibility;
    for (Tensor* each : {&seen.query_position, &seen.key_position, &seen.key_valid,
                         &seen.query_document, &seen.key_document, &seen.mask}) {
      *each = sent(*each, place);
    }
    if (scattered_) {
      const auto index = [&](int64_t tokens, int64_t step) {
        const Tensor at = counted(cpu_.context, {1, tokens},
                                  [&](int64_t, int64_t i) { return (i * step + 2) % tokens; });
        return sent(ops::reshape(cpu_.context, at, Shape{tokens}), place);
      };
      p.dropout.query_index = index(GetParam().queries, 3);
      p.dropout.key_index = index(GetParam().keys, 7);
    }
    if (p.bias) p.bias = inputs[3];
    if (p.distance_bias) p.distance_bias = inputs[p.bias ? 4 : 3];
    if (p.sinks) p.sinks = inputs.back();
    return p;
  }
  Results results(Place& place, DType dtype) {
    const Case& c = GetParam();
    const Inputs on_host = inputs_of(cpu_.context, c, dtype, true);
    std::vector<Tensor> inputs;
    for (const Tensor& x : on_host.all) {
      const Tensor there = by_token_ ? sent_by_token(x, place) : sent(x.detach(), place);
      inputs.push_back(there);
      inputs.back().set_requires_grad(true);
    }
    Tape tape;
    Context recording = place.context;
    recording.tape = &tape;
    const Tensor y = scaled_dot_product(recording, inputs[0], inputs[1], inputs[2],
                                        parameters_at(place, on_host, inputs));
    const Tensor seed = testing::random_tensor(cpu_.context, y.shape(), 9);
    tape.backward(recording, y, sent(ops::cast(cpu_.context, seed, y.dtype()), place));
    Results all{values_of(y)};
    for (const Tensor& x : inputs) all.push_back(values_of(x.grad()));
    return all;
  }
  std::vector<double> values_of(const Tensor& x) {
    const Tensor here = to_allocator(x.detach(), *cpu_.memory);
    return ops::cast(cpu_.context, here, DType::kF64).to_vector<double>();
  }
  void expect_agreement(DType dtype, double rounding) {
    const Results want = results(cpu_, DType::kF64), own = results(cpu_, dtype);
    const Results got = results(gpu_, dtype);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      double largest = 0.1, error = 0, bar = 0;
      for (size_t j = 0; j < want[i].size(); ++j) {
        largest = std::max(largest, std::abs(want[i][j]));
        bar = std::max(bar, 3 * std::abs(own[i][j] - want[i][j]));
        error = std::max(error, std::abs(got[i][j] - want[i][j]));
        ASSERT_FALSE(std::isnan(got[i][j])) << i << ", " << j;
      }
      EXPECT_LE(error, bar + rounding * largest) << "part " << i;
    }
  }
  Place cpu_{make_caching_allocator()}, gpu_{take_gpu()};
  bool scattered_ = false, by_token_ = false;
};

TEST_P(GpuAttention, FollowsTheCpu) {
  vary_schedule(GetParam().name.size());
  expect_agreement(DType::kF32, 0x1p-17);
  expect_agreement(DType::kBF16, 0x1p-6);
  scattered_ = GetParam().dropout > 0;
  if (scattered_) expect_agreement(DType::kF32, 0x1p-17);
}
INSTANTIATE_TEST_SUITE_P(All, GpuAttention, ::testing::ValuesIn(cases()),
                         [](const auto& item) { return item.param.name; });

// Two groups of two rows are two attentions, one behind the other, bit for bit: also of some of the
// heads, and of so many queries that several blocks share a head's.
TEST(GpuAttentionOfGroups, EachHasTheBitsOfItsOwn) {
  constexpr int64_t kHeads = 4, kTokens = 150, kReach = 30;
  Place cpu(make_caching_allocator()), gpu(take_gpu());
  struct Some {
    int64_t start, length;
  };
  // q, k, v and the tables with their gradients, and the result, of these rows, groups and heads.
  const auto computed = [&](Some groups, Some heads) {
    Tape tape;
    Context cx = gpu.context;
    cx.tape = &tape;
    std::vector<Tensor> some;
    for (int i = 0; i < 4; ++i) {
      const bool table = i == 3;
      const Shape shape = table ? Shape{2, kHeads, 2 * kReach + 1} : Shape{4, kHeads, kTokens, 8};
      const Tensor all = ops::cast(
          cpu.context, testing::random_tensor(cpu.context, shape, 30 + static_cast<uint64_t>(i)),
          DType::kF32);
      const int64_t rows = table ? 1 : 2;  // of a group
      const Tensor rows_of =
          ops::slice(cpu.context, all, 0, rows * groups.start, rows * groups.length);
      const Tensor part = ops::slice(cpu.context, rows_of, 1, heads.start, heads.length);
      some.push_back(to_allocator(ops::contiguous(cpu.context, part), *gpu.memory));
      some.back().set_requires_grad(true);
    }
    Parameters p;
    p.distance_bias = some[3];
    const Tensor y = scaled_dot_product(cx, some[0], some[1], some[2], p);
    tape.backward(cx, y);
    std::vector<std::vector<float>> results{
        to_allocator(y.detach(), *cpu.memory).to_vector<float>()};
    for (const Tensor& x : some) {
      const Tensor here = to_allocator(x.grad(), *cpu.memory);
      results.push_back(ops::contiguous(cpu.context, here).to_vector<float>());
    }
    return results;
  };
  const auto whole = computed({0, 2}, {0, kHeads});
  for (const int64_t group : {0, 1}) {
    for (const int64_t head : {0, 2}) {
      const auto part = computed({group, 1}, {head, 2});
      for (size_t i = 0; i < whole.size(); ++i) {
        const auto rows = static_cast<size_t>(i < 4 ? 2 : 1);
        const size_t of_head = part[i].size() / rows / 2;
        for (size_t row = 0; row < rows; ++row) {
          const auto from =
              whole[i].begin() +
              static_cast<ptrdiff_t>(
                  ((static_cast<size_t>(group) * rows + row) * kHeads + static_cast<size_t>(head)) *
                  of_head);
          const auto own = part[i].begin() + static_cast<ptrdiff_t>(row * 2 * of_head);
          EXPECT_TRUE(std::equal(own, own + static_cast<ptrdiff_t>(2 * of_head), from))
              << "part " << i << " of group " << group << ", heads from " << head << ", row "
              << row;
        }
      }
    }
  }
}

// What cuDNN takes, where it can be loaded: in the tests on a CPU always.
std::vector<Case> cudnn_cases() {
  Case plain{"plain"};
  plain.rows = 2, plain.heads = plain.key_heads = 2, plain.queries = plain.keys = 128;
  plain.features = 64;
  Case causal = plain, wide = plain, odd = plain, grouped = plain, one_key_head = plain;
  causal.name = "causal", causal.causal = true;
  wide.name = "wide", wide.features = 128, wide.causal = true;
  odd.name = "odd", odd.queries = odd.keys = 77, odd.causal = true;
  grouped.name = "grouped", grouped.heads = 4, grouped.causal = true, grouped.keys = 131;
  one_key_head.name = "one_key_head", one_key_head.key_heads = 1, one_key_head.features = 32;
  Case cross = plain, later = plain, before = plain, window = plain, values = plain, long_one;
  cross.name = "cross", cross.queries = 65, cross.keys = 200;
  later.name = "more_keys", later.queries = 40, later.keys = 150, later.causal = true;
  before.name = "more_queries", before.queries = 150, before.keys = 40, before.causal = true;
  window.name = "window", window.queries = window.keys = 190, window.causal = true,
  window.left = 37;
  values.name = "other_values", values.features = 96, values.value_features = 40;
  long_one.name = "long", long_one.rows = 1, long_one.heads = 2, long_one.key_heads = 1;
  long_one.queries = long_one.keys = 1023, long_one.features = 64, long_one.causal = true;
  long_one.scale = 0.3;
  return {plain, causal, wide,   odd,    grouped, one_key_head,
          cross, later,  before, window, values,  long_one};
}

class CudnnAttention : public GpuAttention {
 protected:
  void SetUp() override {
    const auto cudnn = cuda::CudnnAttention::create();
    if (!cudnn) GTEST_SKIP() << cudnn.error().to_string();
    backward_too_ = (*cudnn)->takes_partial_tiles() || GetParam().keys % 128 == 0;
  }
  void expect_agreement_by(cuda::AttentionMode mode, DType dtype) {
    cuda::choose_attention(mode);
    const int64_t before = cuda::cudnn_runs();
    expect_agreement(dtype, dtype == DType::kBF16 ? 0x1p-6 : 0x1p-9);
    EXPECT_EQ(cuda::cudnn_runs(), before + 1 + backward_too_);
    cuda::choose_attention(cuda::AttentionMode::kMeasured);
  }
  bool backward_too_ = true;
};

TEST_P(CudnnAttention, FollowsTheCpu) {
  expect_agreement_by(cuda::AttentionMode::kCudnn, DType::kBF16);
  expect_agreement_by(cuda::AttentionMode::kCudnn, DType::kF16);
  expect_agreement_by(cuda::AttentionMode::kUnordered, DType::kBF16);
  by_token_ = true;
  expect_agreement_by(cuda::AttentionMode::kCudnn, DType::kBF16);
}
TEST_P(CudnnAttention, GivesTheSameBitsAgain) {
  cuda::choose_attention(cuda::AttentionMode::kCudnn);
  const Results once = results(gpu_, DType::kBF16);
  EXPECT_EQ(results(gpu_, DType::kBF16), once);
  cuda::choose_attention(cuda::AttentionMode::kMeasured);
}
INSTANTIATE_TEST_SUITE_P(All, CudnnAttention, ::testing::ValuesIn(cudnn_cases()),
                         [](const auto& item) { return item.param.name; });

TEST(GpuAttentionItself, RefusesWidthsOfHeadsThatItHasNoKernelFor) {
  Place place{take_gpu()};
  for (const auto& [width, value_width] : {std::pair{136, 136}, {4, 129}, {0, 4}, {4, 0}}) {
    const Tensor x = Tensor::full(*place.memory, {1, 1, 2, width}, 1);
    const Tensor v = Tensor::full(*place.memory, {1, 1, 2, value_width}, 1);
    try {
      scaled_dot_product(place.context, x, x, v, Parameters{});
      ADD_FAILURE() << "no refusal of " << width << " and " << value_width;
    } catch (const StatusError& error) {
      EXPECT_EQ(error.status().message(),
                "attention with heads of " + std::to_string(width) + " and values of " +
                    std::to_string(value_width) +
                    " features, not 1 to 128 both, has no kernel for cuda:0");
    }
  }
}

}  // namespace
}  // namespace weft::attention
