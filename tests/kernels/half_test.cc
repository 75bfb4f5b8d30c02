// bfloat16 and float16: rounding against exact arithmetic, every dispatch level, casts, and ops
// that run in fp32.
#include "kernels/tensor/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/convolution.h"
#include "kernels/ops/convolution.h"
#include "kernels/ops/norms.h"
#include "kernels/tensor/strided.h"
#include "proto/base/status.h"
#include "tests/testing/gradient_check.h"

namespace weft {
namespace {

using testing::Bench;
using testing::random_tensor;

// The nearest multiple of the type's last bit at x's size, ties to even, by the C library.
template <typename T>
double nearest(double x, int fraction_bits, int exponent_min, double largest) {
  if (!std::isfinite(x) || x == 0) return x;
  const int exponent = std::max(std::ilogb(x), exponent_min);
  const double unit = std::ldexp(1.0, exponent - fraction_bits);
  const double rounded = std::nearbyint(x / unit) * unit;
  return std::abs(rounded) > largest ? std::copysign(INFINITY, x) : rounded;
}
double nearest_bf16(double x) { return nearest<bfloat16>(x, 7, -126, std::ldexp(255.0, 127 - 7)); }
double nearest_f16(double x) { return nearest<float16>(x, 10, -14, 65504); }

// Floats of every size and sign, among them ties, infinities and subnormals of float16.
std::vector<float> samples() {
  std::vector<float> values{0.0F,         -0.0F,       65504.0F,     65519.996F, 65520.0F,
                            1e38F,        3.4e38F,     INFINITY,     -INFINITY,  1.0F,
                            1.00390625F,  1.01171875F, 0x1p-24F,     0x1p-25F,   0x1.8p-25F,
                            0x1.ffcp-15F, 0x1p-126F,   -0x1.fep-126F};
  for (uint32_t i = 0; i < 200000; ++i) {
    const uint32_t word = i * 2654435761U;
    float value = 0;
    std::memcpy(&value, &word, sizeof(value));
    const bool usual = std::isnormal(value);
    if (usual) values.push_back(value);
    if (i % 3 == 0) values.push_back(std::ldexp(static_cast<float>(word % 4096), -24));
  }
  return values;
}

TEST(Half, RoundsToNearestEven) {
  for (const float x : samples()) {
    ASSERT_EQ(double{bfloat16(x)}, nearest_bf16(x)) << x;
    ASSERT_EQ(double{float16(x)}, nearest_f16(x)) << x;
  }
}

TEST(Half, EveryValueSurvivesTheWayToFloatAndBack) {
  for (uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const auto word = static_cast<uint16_t>(bits);
    const float b = std::bit_cast<bfloat16>(word), f = std::bit_cast<float16>(word);
    if (std::isnan(b)) {
      EXPECT_TRUE(std::isnan(float{bfloat16(b)}));
    } else {
      ASSERT_EQ(bfloat16(b).bits, word);
    }
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(float{float16(f)}));
    } else {
      ASSERT_EQ(float16(f).bits, word);
    }
  }
  EXPECT_EQ(float{std::bit_cast<float16>(uint16_t{0x0001})}, 0x1p-24F);
  EXPECT_EQ(float{std::bit_cast<float16>(uint16_t{0x83FF})}, -1023 * 0x1p-24F);
  EXPECT_EQ(float{std::bit_cast<float16>(uint16_t{0x7BFF})}, 65504.0F);
}

TEST(Half, EveryLevelConvertsAlike) {
  std::vector<float> values = samples();
  values.insert(values.end(), {NAN, -NAN, std::numeric_limits<float>::signaling_NaN()});
  for (const cpu::Level level :
       {cpu::Level::kV2, cpu::Level::kV3, cpu::Level::kV4, cpu::Level::kBf16}) {
    if (!cpu::supported(level)) continue;
    const cpu::ConvertKernels& kernels = cpu::convert_at(level);
    for (const size_t n : {values.size(), size_t{1}, size_t{7}, size_t{16}, size_t{37}}) {
      const auto count = static_cast<int64_t>(n);
      const float* from = values.data() + values.size() - n;
      std::vector<bfloat16> b(n), sum(n);
      std::vector<float16> f(n);
      std::vector<float> wide(n), total(from, from + n);
      kernels.round_bf16(from, b.data(), count);
      kernels.round_f16(from, f.data(), count);
      sum = b;
      kernels.add_bf16(b.data(), sum.data(), count);
      kernels.add_bf16_f32(b.data(), total.data(), count);
      for (size_t i = 0; i < n; ++i) {
        const bfloat16 bf(from[i]);
        const float16 hf(from[i]);
        if (std::isnan(from[i])) {
          EXPECT_TRUE(std::isnan(float{b[i]}) && std::isnan(float{f[i]})) << i;
          continue;
        }
        ASSERT_EQ(b[i].bits, bf.bits) << static_cast<int>(level) << " " << from[i];
        ASSERT_EQ(f[i].bits, hf.bits) << static_cast<int>(level) << " " << from[i];
        ASSERT_EQ(sum[i].bits, bfloat16(float{bf} + float{bf}).bits) << from[i];
        ASSERT_EQ(total[i], from[i] + float{bf});
      }
      kernels.widen_bf16(b.data(), wide.data(), count);
      for (size_t i = 0; i < n; ++i) ASSERT_TRUE(wide[i] == float{b[i]} || std::isnan(wide[i]));
      kernels.widen_f16(f.data(), wide.data(), count);
      for (size_t i = 0; i < n; ++i) ASSERT_TRUE(wide[i] == float{f[i]} || std::isnan(wide[i]));
    }
  }
}

TEST(Half, ALevelIsForcedByName) {
  EXPECT_EQ(cpu::level_of("v2"), cpu::Level::kV2);
  EXPECT_TRUE(cpu::supported(cpu::level_of("")));
  EXPECT_THROW(cpu::level_of("v9"), StatusError);
  EXPECT_THROW(cpu::level_of("V2"), StatusError);
  if (!cpu::supported(cpu::Level::kAmx)) {
    EXPECT_THROW(cpu::level_of("amx"), StatusError);
  }
}

TEST(Half, CastsCopiesAndFills) {
  Bench bench;
  Context& cx = bench.context;
  const Tensor x = random_tensor<float>(cx, {5, 7}, 1);
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    const Tensor narrow = ops::cast(cx, x, dtype);
    EXPECT_EQ(narrow.bytes(), 70U);
    const Tensor turned = ops::permute(cx, narrow, std::array{1, 0});
    const Tensor wide = ops::cast(cx, turned, DType::kF32);
    const Tensor whole = ops::cast(cx, clone(bench.pool, turned), DType::kF32);
    for (int64_t i = 0; i < 35; ++i) {
      const float value = x.data<float>()[i % 5 * 7 + i / 5];
      const float expected = dtype == DType::kBF16 ? float{bfloat16(value)} : float{float16(value)};
      EXPECT_EQ(wide.data<float>()[i], expected);
      EXPECT_EQ(whole.data<float>()[i], expected);
    }
  }
  EXPECT_EQ(float{Tensor::full(cx.allocator, {}, 1.0 / 3, DType::kBF16).to_vector<bfloat16>()[0]},
            0.333984375F);
  EXPECT_EQ(dtype_name(DType::kBF16), "BF16");
  EXPECT_EQ(dtype_name(DType::kF16), "F16");
}

// The result is the fp32 one of the same inputs, rounded once, whether the op has a kernel for the
// type or not. So are the gradients where it has; where it has none, leaves' are not rounded at
// all. Of curves a bf16 result may be its neighbor (half_curves_test.cc).
class HalfOps : public ::testing::TestWithParam<DType> {
 protected:
  Tensor rounded(const Tensor& x) {
    return ops::cast(cx_, ops::cast(cx_, x, GetParam()), DType::kF32);
  }
  // Runs f on leaves in fp32 and in the half type; both start from values of the half type. units:
  // of bf16's last place, by which a number of it may differ. apart: of a gradient, relative, where
  // its sums are taken in another order.
  void compare(std::vector<Tensor> inputs, const testing::Function& f, bool rounds = true,
               int units = 0, float apart = 0) {
    std::vector<Tensor> wide, narrow;
    for (const Tensor& input : inputs) {
      const bool floating = is_floating(input.dtype());
      wide.push_back(floating ? rounded(input) : input);
      narrow.push_back(floating ? ops::cast(cx_, input, GetParam()) : input);
      if (floating) wide.back().set_requires_grad(true);
      if (floating) narrow.back().set_requires_grad(true);
    }
    Context recording = cx_;
    recording.tape = &bench_.tape;
    const Tensor expected = f(recording, wide);
    bench_.tape.backward(recording, expected);
    const Tensor actual = f(recording, narrow);
    EXPECT_EQ(actual.dtype(), rounds ? GetParam() : DType::kF32);
    bench_.tape.backward(recording, actual);
    const Tensor result = ops::cast(cx_, actual, DType::kF32);
    const auto near = [&](float value, float want) {
      if (value == want) return true;
      return GetParam() == DType::kBF16 &&
             std::abs(value - want) <=
                 static_cast<float>(units) * std::ldexp(1.0F, std::ilogb(want) - 7);
    };
    const std::vector<float> wanted = (rounds ? rounded(expected) : expected).to_vector<float>();
    const std::vector<float> values = result.to_vector<float>();
    ASSERT_EQ(values.size(), wanted.size());
    for (size_t k = 0; k < values.size(); ++k) EXPECT_TRUE(near(values[k], wanted[k])) << k;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (!is_floating(inputs[i].dtype())) continue;
      ASSERT_TRUE(narrow[i].grad());
      EXPECT_EQ(narrow[i].grad().dtype(), DType::kF32);
      const std::vector<float> exact = wide[i].grad().to_vector<float>();
      const std::vector<float> once = rounded(wide[i].grad()).to_vector<float>();
      const std::vector<float> got = narrow[i].grad().to_vector<float>();
      for (size_t k = 0; k < got.size(); ++k) {
        const bool halves = GetParam() == DType::kBF16;
        const float far = halves ? apart * std::abs(exact[k]) : 0;
        EXPECT_TRUE(std::abs(got[k] - exact[k]) <= far || (halves && near(got[k], once[k])))
            << "input " << i << " element " << k << ": " << got[k] << " for " << exact[k];
      }
    }
  }
  Tensor random(Shape shape, uint64_t seed) { return random_tensor<float>(cx_, shape, seed); }

  Bench bench_;
  Context cx_ = bench_.context;
};

TEST_P(HalfOps, RunInSinglePrecision) {
  compare({random({3, 5}, 1), random({5, 4}, 2)},
          [](Context& cx, auto in) { return ops::matmul(cx, in[0], in[1]); });
  compare({random({3, 5}, 1), random({5, 4}, 2), random({4}, 3)}, [](Context& cx, auto in) {
    return ops::linear(cx, in[0], in[1], in[2], ops::WeightLayout::kInOut);
  });
  compare(
      {random({6, 8}, 3), random({8}, 4), random({8}, 5)},
      [](Context& cx, auto in) { return ops::layer_norm(cx, in[0], in[1], in[2], 1e-5); }, true, 0,
      4e-6F);
  const auto curve = [&](Shape shape, ops::Activation kind) {
    const auto activated = [kind](Context& cx, auto in) { return ops::activate(cx, in[0], kind); };
    compare({random(shape, 6)}, activated, true, 1);
  };
  curve({4, 9}, ops::Activation::kGeluTanh);
  curve({5, 1300}, ops::Activation::kSilu);
  compare({random({5, 300}, 6)}, [](Context& cx, auto in) {
    return ops::dropout(cx, in[0], 0.3, {1, 2}, {{10, 300}, {5, 0}});
  });
  compare({random({2, 3, 4}, 6), testing::ids(cx_, {2}, {-1, 2})},
          [](Context& cx, auto in) { return ops::gather_rows(cx, in[0], in[1]); });
  compare({random({4, 9}, 6)}, [](Context& cx, auto in) { return ops::mean(cx, in[0], 0); });
  compare({random({4, 9}, 6), random({9}, 7)},
          [](Context& cx, auto in) { return ops::multiply(cx, in[0], in[1]); });
  compare({testing::ids(cx_, {3}, {1, 0, 1}), random({2, 4}, 8)},
          [](Context& cx, auto in) { return ops::embedding(cx, in[0], in[1]); });
  compare(
      {random({2, 6}, 9), testing::ids(cx_, {2}, {3, -100})},
      [](Context& cx, auto in) { return ops::cross_entropy_sum(cx, in[0], in[1]); }, false);
}

// Weights that no half type has, near 1: the result has them, and so have the gradients, in fp32.
TEST_P(HalfOps, NormsTakeTheirWeightsInSinglePrecision) {
  const Tensor x = rounded(random({6, 40}, 3)), slopes = rounded(random({6, 40}, 4));
  std::vector<float> near_one(40), near_zero(40);
  for (size_t i = 0; i < near_one.size(); ++i) {
    near_one[i] = 1.0F + 1e-4F * static_cast<float>(i + 1);
    near_zero[i] = 1e-3F * static_cast<float>(i) - 1e-2F;
  }
  for (const bool by_size : {false, true}) {
    std::vector<std::vector<double>> results[2];  // in float64, and of half rows
    for (const bool half : {false, true}) {
      const DType weights = half ? DType::kF32 : DType::kF64, rows = half ? GetParam() : weights;
      Context recording = cx_;
      recording.tape = &bench_.tape;
      std::vector<Tensor> leaves{ops::cast(cx_, x, rows)};
      for (const auto& values : {near_one, near_zero}) {
        leaves.push_back(ops::cast(cx_, Tensor::from<float>(cx_.allocator, {40}, values), weights));
      }
      for (Tensor& leaf : leaves) (leaf = clone(bench_.pool, leaf)).set_requires_grad(true);
      const Tensor y = by_size ? ops::rms_norm(recording, leaves[0], leaves[1], 1e-5)
                               : ops::layer_norm(recording, leaves[0], leaves[1], leaves[2], 1e-5);
      EXPECT_EQ(y.dtype(), rows);
      bench_.tape.backward(recording, y, ops::cast(cx_, slopes, rows));
      results[half].push_back(ops::cast(cx_, y, DType::kF64).to_vector<double>());
      for (const Tensor& leaf : leaves) {
        if (leaf.grad()) {
          results[half].push_back(ops::cast(cx_, leaf.grad(), DType::kF64).to_vector<double>());
        }
      }
    }
    const double roundings = GetParam() == DType::kBF16 ? 0x1p-8 : 0x1p-11;  // of x and y
    for (size_t part = 0; part < results[0].size(); ++part) {
      const double most = part < 2 ? 1.01 * roundings : 1e-5;
      for (size_t i = 0; i < results[0][part].size(); ++i) {
        const double wanted = results[0][part][i];
        EXPECT_NEAR(results[1][part][i], wanted, most * std::max(0.1, std::abs(wanted)))
            << by_size << " part " << part << " element " << i;
      }
    }
  }
}

// Its gradient comes from the rounded result that it keeps, so it is as near as that allows.
TEST_P(HalfOps, SoftmaxKeepsItsRoundedResult) {
  const Tensor x = rounded(random({5, 300}, 6)), weights = rounded(random({5, 300}, 7));
  std::vector<std::vector<float>> results, gradients;
  for (const DType dtype : {DType::kF32, GetParam()}) {
    Context recording = cx_;
    recording.tape = &bench_.tape;
    Tensor leaf = clone(bench_.pool, ops::cast(cx_, x, dtype));
    leaf.set_requires_grad(true);
    const Tensor y = ops::softmax(recording, leaf, 1);
    bench_.tape.backward(recording, y, ops::cast(cx_, weights, dtype));
    results.push_back(ops::cast(cx_, y, DType::kF32).to_vector<float>());
    gradients.push_back(leaf.grad().to_vector<float>());
  }
  float largest = 0;
  for (const float value : gradients[0]) largest = std::max(largest, std::abs(value));
  const Tensor expected = Tensor::from<float>(cx_.allocator, x.shape(), results[0]);
  if (GetParam() == DType::kBF16) {  // as exact as norms.h says
    for (size_t i = 0; i < results[0].size(); ++i) {
      const float exact = results[0][i], half_unit = std::ldexp(1.0F, std::ilogb(exact) - 8);
      EXPECT_NEAR(results[1][i], exact, half_unit + 0x1p-12F * exact) << i;
    }
  } else {
    EXPECT_EQ(results[1], rounded(expected).to_vector<float>());
  }
  for (size_t i = 0; i < gradients[0].size(); ++i) {
    EXPECT_NEAR(gradients[1][i], gradients[0][i], 0x1p-7F * largest) << i;
  }
}

TEST_P(HalfOps, SeveralFloatingTypesGiveFp32) {
  const Tensor x = ops::cast(cx_, random({3}, 1), GetParam()), y = random({3}, 2);
  EXPECT_EQ(ops::add(cx_, x, y).dtype(), DType::kF32);
}

TEST_P(HalfOps, MemoryOfASavedInputIsThatOfTheHalfType) {
  Context recording = cx_;
  recording.tape = &bench_.tape;
  Tensor x = ops::cast(cx_, random({64, 64}, 1), GetParam());
  x.set_requires_grad(true);
  const int64_t before = bench_.allocator->stats().live_bytes;
  const Tensor y = ops::activate(recording, x, ops::Activation::kSilu);
  EXPECT_EQ(bench_.allocator->stats().live_bytes - before, 64 * 64 * 2);
  bench_.tape.clear();
}

// Where the processor has the instructions there are no fp32 copies of what it reads and writes.
TEST_P(HalfOps, ConvolutionsComputeInBf16WhereTheProcessorCan) {
  const cpu::ConvolutionSizes sizes{.samples = 2,
                                    .channels = 32,
                                    .out_channels = 32,
                                    .in = {16, 16},
                                    .out = {14, 14},
                                    .kernel = {3, 3}};
  const bool in_half = GetParam() == DType::kBF16 && cpu::convolves_in_bf16(sizes);
  const Tensor x = ops::cast(cx_, random({2, 32, 16, 16}, 1), GetParam());
  const Tensor weight = ops::cast(cx_, random({32, 32, 3, 3}, 2), GetParam());
  bench_.allocator->reset_peak();
  const int64_t before = bench_.allocator->stats().peak_bytes;
  const Tensor y = ops::convolution(cx_, x, weight, Tensor());
  const int64_t more = bench_.allocator->stats().peak_bytes - before;
  if (in_half) {
    EXPECT_EQ(more, static_cast<int64_t>(y.bytes()));
  } else {
    EXPECT_GT(more, 2 * static_cast<int64_t>(x.bytes() + y.bytes()));
  }
}

TEST_P(HalfOps, MicroBatchesAddUpInFp32) {
  Tensor x = Tensor::full(cx_.allocator, {1}, 1, GetParam());
  x.set_requires_grad(true);
  Context recording = cx_;
  recording.tape = &bench_.tape;
  for (int i = 0; i < 4096; ++i) {
    bench_.tape.backward(recording, ops::scale(recording, x, 1));
  }
  EXPECT_EQ(x.grad().to_vector<float>()[0], 4096);
  bench_.tape.clear();
}

TEST_P(HalfOps, CheckpointedBlocksAgree) {
  const Tensor w = ops::cast(cx_, random({8, 8}, 2), GetParam());
  std::vector<std::vector<float>> gradients;
  for (const bool kept : {true, false}) {
    Tensor x = ops::cast(cx_, random({4, 8}, 1), GetParam());
    Tensor weight = clone(bench_.pool, w);
    x.set_requires_grad(true);
    weight.set_requires_grad(true);
    Context recording = cx_;
    recording.tape = &bench_.tape;
    const auto block = [&](Context& cx, const Tensor& in) {  // three read the input
      const Tensor one = ops::activate(cx, ops::matmul(cx, in, weight), ops::Activation::kGeluTanh);
      const Tensor two = ops::linear(cx, in, weight, Tensor(), ops::WeightLayout::kOutIn);
      return ops::add(cx, ops::multiply(cx, one, two), in);
    };
    const Tensor middle = ops::scale(recording, x, 1);
    const Tensor y = kept ? block(recording, middle) : checkpointed(recording, block, middle);
    bench_.tape.backward(recording, y);
    gradients.push_back(x.grad().to_vector<float>());
    gradients.push_back(weight.grad().to_vector<float>());
  }
  EXPECT_EQ(gradients[0], gradients[2]);
  EXPECT_EQ(gradients[1], gradients[3]);
}

INSTANTIATE_TEST_SUITE_P(Types, HalfOps, ::testing::Values(DType::kBF16, DType::kF16),
                         [](const auto& type) { return std::string(dtype_name(type.param)); });

}  // namespace
}  // namespace weft
