// Tiled attention against its plain composition of ops: in float64, by finite differences, and in
// float32 and bf16 at every level of instructions that this processor has.
#include "kernels/attention/attention.h"

#include "kernels/cpu/tiles.h"
#include "tests/kernels/attention_cases.h"
#include "tests/kernels/tiles_amx_on_cpu.h"
#include "tests/testing/gradient_check.h"

namespace weft::attention {
namespace {

using testing::Bench;
using testing::random_tensor;

using Results = std::vector<std::vector<double>>;

std::vector<double> wide_values(Context& cx, const Tensor& x) {
  return ops::cast(cx, x.detach(), DType::kF64).to_vector<double>();
}

class AttentionTest : public ::testing::TestWithParam<Case> {
 protected:
  Tensor seed() {
    const Case& c = GetParam();
    return random_tensor(cx_, {c.rows, c.heads, c.queries, c.values()}, 9);
  }
  // Output, and the gradient of each input.
  Results results(const Inputs& in, bool tiled) {
    Tape tape;
    Context recording = cx_;
    recording.tape = &tape;
    const Parameters p = parameters_of(cx_, GetParam(), in.all);
    const Tensor y = tiled ? scaled_dot_product(recording, in.q(), in.k(), in.v(), p)
                           : composition(recording, in.q(), in.k(), in.v(), p);
    tape.backward(recording, y, ops::cast(cx_, seed(), y.dtype()));
    Results all = {wide_values(cx_, y)};
    for (const Tensor& x : in.all) {
      all.push_back(wide_values(cx_, x.grad()));
      x.set_grad(Tensor());
    }
    return all;
  }
  struct Size {
    double largest = 0, mean = 0;  // the mean is of squares, its root
  };
  static Size size(const std::vector<double>& x) {
    Size all;
    for (const double value : x) {
      EXPECT_FALSE(std::isnan(value));
      all.largest = std::max(all.largest, std::abs(value));
      all.mean += value * value / static_cast<double>(x.size());
    }
    all.mean = std::sqrt(all.mean);
    return all;
  }
  static Size error(std::vector<double> a, const std::vector<double>& b) {
    EXPECT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) a[i] -= b[i];
    return size(a);
  }
  // At most twice (forward) or three times (backward) as far from float64 as the composition is in
  // the same precision, but for a rounding or two: by the largest error and by the root of the mean
  // square. Without fused products (v2) each step rounds twice, so that beside a composition that
  // has them (its own run, forced to v2, has none) the largest error may be twice that.
  // floor: errors that are no one's fault, of each part (`cancelled`), or none.
  void expect_as_good_as_the_composition(DType dtype, double rounding,
                                         const std::vector<double>& floor = {}) {
    const Inputs narrow = inputs_of(cx_, GetParam(), dtype, true);
    const Results exact = results(inputs_of(cx_, GetParam(), DType::kF64, true), false);
    const Results plain = results(narrow, false);
    const auto expect_good = [&](const Results& tiled, const std::string& level, int roundings) {
      for (size_t i = 0; i < exact.size(); ++i) {
        const double factor = i == 0 ? 2 : 3;
        const std::string what =
            (i == 0 ? "output" : "gradient of input " + std::to_string(i - 1)) + ", level " + level;
        const Size found = error(tiled[i], exact[i]), peer = error(plain[i], exact[i]);
        Size whole = size(exact[i]);
        if (!floor.empty()) {
          whole = {std::max(whole.largest, floor[i]), std::max(whole.mean, floor[i])};
        }
        EXPECT_LE(found.mean, factor * peer.mean + rounding * whole.mean) << what;
        EXPECT_LE(found.largest, roundings * factor * peer.largest + rounding * whole.largest)
            << what;
      }
    };
    for (const cpu::Level level :
         {cpu::Level::kV2, cpu::Level::kV3, cpu::Level::kV4, cpu::Level::kBf16, cpu::Level::kAmx}) {
      if (!cpu::supported(level)) continue;
      const cpu::ForcedTiles forced(level);
      const bool twice = level == cpu::Level::kV2 && cpu::level() != level;
      expect_good(results(narrow, true), std::to_string(static_cast<int>(level)), twice ? 2 : 1);
    }
    if (dtype != DType::kBF16 || !cpu::supported(cpu::Level::kBf16)) return;
    const cpu::ForcedTiles forced(testing::tiles_amx_on_cpu());
    expect_good(results(narrow, true), "amx in C++", 1);
  }
  void expect_the_composition_in_float64() {
    const Inputs in = inputs_of(cx_, GetParam(), DType::kF64, false);
    const Results expected = results(in, false);
    for (const cpu::Level level : {cpu::Level::kV2, cpu::Level::kV3, cpu::Level::kV4}) {
      if (!cpu::supported(level)) continue;
      const cpu::ForcedTiles forced(level);
      const Results tiled = results(in, true);
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_LE(error(tiled[i], expected[i]).largest, 1e-13 * (1 + size(expected[i]).largest))
            << i;
      }
    }
  }
  // What the gradient of a score, weight (kept d_weight - delta), takes its digits from, times what
  // it is multiplied by on the way to each input: delta is a sum over features of the output, a
  // d_weight one of the values, each with its own roundings, and a query that sees one key or
  // trusts one alone has nothing left but these. The composition's sum over keys is one of the very
  // d_weights that it is taken from, and leaves 0 there.
  std::vector<double> cancelled() {
    const Inputs in = inputs_of(cx_, GetParam(), DType::kF64, true);
    const Parameters p = parameters_of(cx_, GetParam(), in.all);
    const Case& c = GetParam();
    const Shape grouped{c.rows, c.key_heads, c.heads / c.key_heads * c.queries, c.values()};
    const Tensor d_weights =
        ops::matmul(cx_, ops::reshape(cx_, seed(), grouped),
                    ops::permute(cx_, in.v().detach(), std::array{0, 1, 3, 2}));
    const auto largest = [&](const Tensor& x) { return size(wide_values(cx_, x)).largest; };
    const double d_score = largest(d_weights) / (1 - c.dropout), scale = std::abs(p.scale);
    std::vector<double> each(in.all.size() + 1, d_score);  // tables, sinks
    each[0] = 0;                                           // the output
    each[1] = d_score * scale * largest(in.k());
    each[2] = d_score * scale * largest(in.q());
    each[3] = 0;  // values
    return each;
  }
  Bench bench_;
  Context& cx_ = bench_.context;
};

TEST_P(AttentionTest, IsTheCompositionInFloat64) { expect_the_composition_in_float64(); }

TEST_P(AttentionTest, GradientsAreFiniteDifferences) {
  const Case& c = GetParam();
  if (c.queries * c.keys > 100) return;  // the composition's, which those are compared with, do
  const Inputs in = inputs_of(cx_, c, DType::kF64, false);
  testing::expect_gradients(cx_, in.all, [&](Context& cx, std::span<const Tensor> inputs) {
    return scaled_dot_product(cx, inputs[0], inputs[1], inputs[2], parameters_of(cx, c, inputs));
  });
}

TEST_P(AttentionTest, Float32IsAsGoodAsTheComposition) {
  expect_as_good_as_the_composition(DType::kF32, 0x1p-22);
}

TEST_P(AttentionTest, Bf16IsAsGoodAsTheComposition) {
  expect_as_good_as_the_composition(DType::kBF16, 0x1p-8);
}

TEST_P(AttentionTest, AnyStridesGiveTheSame) {
  for (const DType dtype : {DType::kF64, DType::kBF16}) {
    const Inputs in = inputs_of(cx_, GetParam(), dtype, false);
    const Parameters p = parameters_of(cx_, GetParam(), in.all);
    // [B, T, N, D] in memory, and features apart.
    const std::vector<int> by_token = {0, 2, 1, 3}, apart = {0, 1, 3, 2};
    const std::vector<double> expected =
        wide_values(cx_, scaled_dot_product(cx_, in.q(), in.k(), in.v(), p));
    for (const std::vector<int>& order : {by_token, apart}) {
      const auto stored = [&](const Tensor& x) {
        return ops::permute(cx_, ops::contiguous(cx_, ops::permute(cx_, x, order)), order);
      };
      const Tensor y = scaled_dot_product(cx_, stored(in.q()), stored(in.k()), stored(in.v()), p);
      EXPECT_EQ(wide_values(cx_, y), expected);
    }
  }
}

// The same bits for every number of threads.
TEST_P(AttentionTest, ThreadsDoNotMatter) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    std::vector<Results> all;
    for (const int threads : {1, 2, 5}) {
      Bench bench(threads);
      const Inputs in = inputs_of(bench.context, GetParam(), dtype, false);
      Tape tape;
      Context cx = bench.context;
      cx.tape = &tape;
      const Tensor y = scaled_dot_product(cx, in.q(), in.k(), in.v(),
                                          parameters_of(bench.context, GetParam(), in.all));
      tape.backward(cx, y);
      all.push_back({wide_values(bench.context, y)});
      for (const Tensor& x : in.all) all.back().push_back(wide_values(bench.context, x.grad()));
    }
    EXPECT_EQ(all[0], all[1]);
    EXPECT_EQ(all[0], all[2]);
  }
}

// Not only as near to the truth as a bias of the same numbers, but the same bits.
TEST_P(AttentionTest, ATableByDistanceIsTheBiasThatItStandsFor) {
  const Case& c = GetParam();
  if (c.reach < 0 || !c.bias.empty()) return;
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16}) {
    const Inputs in = inputs_of(cx_, c, dtype, false);
    Parameters by_distance = parameters_of(cx_, c, in.all), biased = by_distance;
    biased.distance_bias = Tensor();
    biased.bias = bias_by_distance(cx_, by_distance.distance_bias, by_distance.visibility, c.rows,
                                   c.queries, c.keys);
    std::vector<Results> all;
    for (const Parameters& p : {by_distance, biased}) {
      Tape tape;
      Context cx = cx_;
      cx.tape = &tape;
      const Tensor y = scaled_dot_product(cx, in.q(), in.k(), in.v(), p);
      tape.backward(cx, y, ops::cast(cx_, seed(), dtype));
      all.push_back({wide_values(cx_, y)});
      for (const Tensor& x : {in.q(), in.k(), in.v()}) {
        all.back().push_back(wide_values(cx_, x.grad()));
        x.set_grad(Tensor());
      }
    }
    EXPECT_EQ(all[0], all[1]);
  }
}

// Blocks of keys in the order in which a ring brings them, and their gradients, give the whole.
TEST_P(AttentionTest, BlocksInRingOrderGiveTheWhole) {
  const Case& c = GetParam();
  if (c.keys < 3 || c.sinks || !c.bias.empty() || !c.mask.empty()) return;
  const Inputs in = inputs_of(cx_, c, DType::kF64, false);
  const Results expected = results(in, true);
  Parameters p = parameters_of(cx_, c, in.all);
  const Visibility whole = p.visibility;
  const int64_t cuts[] = {0, c.keys / 3, c.keys / 3 * 2, c.keys};
  const auto block = [&](int64_t part, const Tensor& x, int dim) {
    return x ? ops::slice(cx_, x.detach(), dim, cuts[part], cuts[part + 1] - cuts[part]) : x;
  };
  const auto parameters = [&](int64_t part) {
    Parameters own = p;
    own.visibility.key_position = block(
        part,
        whole.key_position ? whole.key_position
                           : counted(cx_, {c.rows, c.keys}, [](int64_t, int64_t j) { return j; }),
        1);
    own.visibility.key_valid = block(part, whole.key_valid, 1);
    own.visibility.key_document = block(part, whole.key_document, 1);
    own.dropout.first_key += cuts[part];
    return own;
  };
  const Tensor &q = in.q(), &k = in.k(), &v = in.v();
  Partial sum = block_forward(cx_, q, block(1, k, 2), block(1, v, 2), parameters(1));
  for (const int64_t part : {0, 2}) {
    merge(cx_, sum, block_forward(cx_, q, block(part, k, 2), block(part, v, 2), parameters(part)));
  }
  testing::expect_close(sum.output, expected[0], 1e-14);
  const Tensor delta = ops::sum(cx_, ops::multiply(cx_, sum.output, seed()), -1);
  Tensor dq = Tensor::zeros(cx_.allocator, q.shape(), DType::kF64), by_distance;
  std::vector<Tensor> dk, dv;
  for (int64_t part = 0; part < 3; ++part) {
    const BlockGrads grads = block_backward(cx_, q, block(part, k, 2), block(part, v, 2), seed(),
                                            sum.log_sum_exp, delta, parameters(part));
    dq = ops::add(cx_, dq, grads.q);
    dk.push_back(grads.k);
    dv.push_back(grads.v);
    by_distance = part == 0 || c.reach < 0 ? grads.distance_bias
                                           : ops::add(cx_, by_distance, grads.distance_bias);
  }
  testing::expect_close(dq, expected[1], 1e-13);
  testing::expect_close(ops::concat(cx_, dk, 2), expected[2], 1e-13);
  testing::expect_close(ops::concat(cx_, dv, 2), expected[3], 1e-13);
  ASSERT_EQ(static_cast<bool>(by_distance), c.reach >= 0);
  if (c.reach >= 0) testing::expect_close(by_distance, expected[4], 1e-13);
}

INSTANTIATE_TEST_SUITE_P(All, AttentionTest, ::testing::ValuesIn(cases()),
                         [](const auto& item) { return item.param.name; });

class DrawnAttentionTest : public AttentionTest {};

TEST_P(DrawnAttentionTest, IsTheCompositionInFloat64) { expect_the_composition_in_float64(); }

TEST_P(DrawnAttentionTest, Float32IsAsGoodAsTheComposition) {
  expect_as_good_as_the_composition(DType::kF32, 0x1p-22, cancelled());
}

TEST_P(DrawnAttentionTest, Bf16IsAsGoodAsTheComposition) {
  expect_as_good_as_the_composition(DType::kBF16, 0x1p-8, cancelled());
}

INSTANTIATE_TEST_SUITE_P(All, DrawnAttentionTest, ::testing::ValuesIn(drawn_cases()),
                         [](const auto& item) { return item.param.name; });

// In bf16 the parts of a ring and their gradients are fp32.
TEST(Attention, PartsOfBf16AreFloat32) {
  Bench bench;
  Context& cx = bench.context;
  const Tensor x = ops::cast(cx, random_tensor(cx, {1, 2, 70, 8}, 1), DType::kBF16);
  const Partial part = block_forward(cx, x, x, x, Parameters{});
  EXPECT_EQ(part.output.dtype(), DType::kF32);
  EXPECT_EQ(part.log_sum_exp.dtype(), DType::kF32);
  const Tensor delta = Tensor::zeros(cx.allocator, {1, 2, 70});
  const BlockGrads grads = block_backward(cx, x, x, x, x, part.log_sum_exp, delta, Parameters{});
  for (const Tensor& gradient : {grads.q, grads.k, grads.v}) {
    EXPECT_EQ(gradient.dtype(), DType::kF32);
  }
  const Tensor whole = scaled_dot_product(cx, x, x, x, Parameters{});
  EXPECT_EQ(whole.dtype(), DType::kBF16);
  EXPECT_EQ(wide_values(cx, whole), wide_values(cx, ops::cast(cx, part.output, DType::kBF16)));
}

// Whatever stands there is not multiplied, by a weight of 0 either.
TEST(Attention, PaddingMayHoldNaN) {
  const std::vector<std::vector<uint8_t>> paddings{
      {1, 0, 1, 1, 0}, {0, 1, 1, 1, 1}, {1, 1, 0, 0, 0}, {0, 0, 0, 0, 0}};
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16, DType::kF16}) {
    for (const std::vector<uint8_t>& valid : paddings) {
      Bench bench;
      Context& cx = bench.context;
      Parameters p;
      p.visibility.key_valid = Tensor::from<uint8_t>(cx.allocator, {1, 5}, valid);
      const auto results = [&](double hidden) {
        std::vector<Tensor> qkv;
        for (const uint64_t seed : {1, 2, 3}) {
          Tensor x = random_tensor(cx, {1, 2, 5, 3}, seed);
          for (int64_t i = 0; seed > 1 && i < x.elements(); ++i) {
            if (valid[static_cast<size_t>(i / 3 % 5)] == 0) x.data<double>()[i] = hidden;
          }
          qkv.push_back(ops::cast(cx, x, dtype).detach());
          qkv.back().set_requires_grad(true);
        }
        Tape tape;
        Context recording = cx;
        recording.tape = &tape;
        const Tensor y = scaled_dot_product(recording, qkv[0], qkv[1], qkv[2], p);
        tape.backward(cx, y, Tensor::full(cx.allocator, y.shape(), 0.5, dtype));
        Results all{wide_values(cx, y)};
        for (Tensor& x : qkv) {
          all.push_back(wide_values(cx, x.grad()));
          x.set_grad(Tensor());
        }
        return all;
      };
      EXPECT_EQ(results(std::nan("")), results(0)) << dtype_name(dtype);
    }
  }
}

// As a bias of a dtype's lowest number masks: softmax of equal scores is even, and so are its
// gradients, which take each weight anew from its score and their sum's logarithm.
TEST(Attention, ARowThatABiasMasksAsAWholeIsEven) {
  for (const double low : {-1e9, -3.4e38}) {
    Bench bench;
    Context& cx = bench.context;
    const Tensor q = random_tensor<float>(cx, {1, 1, 1, 3}, 1);
    const Tensor k = random_tensor<float>(cx, {1, 1, 4, 3}, 2);
    Tensor v = random_tensor<float>(cx, {1, 1, 4, 2}, 3);
    v.set_requires_grad(true);
    Parameters p;
    p.bias = Tensor::full(cx.allocator, {1, 1, 1, 4}, low);
    Tape tape;
    Context recording = cx;
    recording.tape = &tape;
    const Tensor y = scaled_dot_product(recording, q, k, v, p);
    testing::expect_close(y, wide_values(cx, ops::mean(cx, v.detach(), 2, true)), 1e-6);
    tape.backward(cx, y, Tensor::full(cx.allocator, y.shape(), 1));
    testing::expect_close(v.grad(), std::vector<double>(8, 0.25), 1e-3);
    v.set_grad(Tensor());
  }
}

TEST(Attention, AQueryThatSeesNothingGivesZerosAndMinusInfinity) {
  Bench bench;
  Context& cx = bench.context;
  const Tensor x = random_tensor<float>(cx, {1, 1, 2, 3}, 1);
  Parameters p;
  p.visibility.key_valid = Tensor::zeros(cx.allocator, {1, 2}, DType::kU8);
  const Partial nothing = block_forward(cx, x, x, x, p);
  EXPECT_EQ(nothing.output.to_vector<float>(), std::vector<float>(6, 0));
  EXPECT_EQ(nothing.log_sum_exp.to_vector<float>(), std::vector<float>(2, -INFINITY));
  Partial sum = block_forward(cx, x, x, x, p);
  merge(cx, sum, nothing);
  EXPECT_EQ(sum.output.to_vector<float>(), std::vector<float>(6, 0));
  const Partial all = block_forward(cx, x, x, x, Parameters{});
  merge(cx, sum, all);
  EXPECT_EQ(sum.output.to_vector<float>(), all.output.to_vector<float>());
}

// Two groups of two rows are two attentions, one behind the other.
TEST(Attention, EachGroupOfRowsHasItsTableByDistance) {
  struct Some {
    int64_t start, length;
  };
  Bench bench;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const auto drawn = [&](const Shape& shape, uint64_t seed) {
      Tensor x = ops::cast(bench.context, random_tensor<float>(bench.context, shape, seed), dtype);
      return x.set_requires_grad(true);
    };
    // q, k, v and the table with their gradients, and the result.
    const auto computed = [&](Some rows, Some groups) {
      Tape tape;
      Context cx = bench.context;
      cx.tape = &tape;
      Tensor all[] = {drawn({4, 2, 70, 8}, 1), drawn({4, 2, 80, 8}, 2), drawn({4, 2, 80, 8}, 3),
                      drawn({2, 2, 2 * 9 + 1}, 4)};
      std::vector<Tensor> some;
      for (size_t i = 0; i < 4; ++i) {
        const Some part = i < 3 ? rows : groups;
        some.push_back(ops::slice(cx, all[i], 0, part.start, part.length));
      }
      Parameters p;
      p.distance_bias = groups.length > 1 ? some[3] : ops::reshape(cx, some[3], {2, 2 * 9 + 1});
      const Tensor y = scaled_dot_product(cx, some[0], some[1], some[2], p);
      tape.backward(cx, y);
      std::vector<Tensor> results{y};
      for (size_t i = 0; i < 4; ++i) {
        const Some part = i < 3 ? rows : groups;
        results.push_back(ops::slice(bench.context, all[i].grad(), 0, part.start, part.length));
      }
      return results;
    };
    const auto whole = computed({0, 4}, {0, 2});
    for (const int64_t group : {0, 1}) {
      const auto part = computed({2 * group, 2}, {group, 1});
      for (size_t i = 0; i < whole.size(); ++i) {
        const int64_t of_group = i < 4 ? 2 : 1;
        const Tensor same = ops::slice(bench.context, whole[i], 0, of_group * group, of_group);
        EXPECT_EQ(wide_values(bench.context, ops::contiguous(bench.context, same)),
                  wide_values(bench.context, ops::contiguous(bench.context, part[i])))
            << i << " of group " << group;
      }
    }
  }
}

// A rank that holds none of the heads.
TEST(Attention, NoHeadsGiveNothing) {
  Bench bench;
  Context cx = bench.context;
  cx.tape = &bench.tape;
  Tensor x = random_tensor<float>(cx, {2, 0, 5, 3}, 1);
  x.set_requires_grad(true);
  const Tensor y = scaled_dot_product(cx, x, x, x, Parameters{});
  EXPECT_EQ(y.shape(), x.shape());
  bench.tape.backward(cx, y);
  EXPECT_EQ(x.grad().shape(), x.shape());
}

// What is not a number in an input is not hidden.
TEST(Attention, NanComesThrough) {
  Bench bench;
  Context& cx = bench.context;
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16}) {
    const Tensor x = ops::cast(cx, random_tensor(cx, {1, 1, 70, 3}, 1), DType::kF64);
    x.data<double>()[12] = NAN;
    const Tensor y = ops::cast(cx, x, dtype);
    for (const double value : wide_values(cx, scaled_dot_product(cx, y, y, y, Parameters{}))) {
      EXPECT_TRUE(std::isnan(value));
    }
  }
}

TEST(Attention, AKeyAfterTheQueryChangesNoBit) {
  Bench bench;
  Context& cx = bench.context;
  const Tensor x = random_tensor<float>(cx, {1, 2, 100, 16}, 1);
  Parameters p;
  p.visibility.causal = true;
  const std::vector<float> before = scaled_dot_product(cx, x, x, x, p).to_vector<float>();
  const Tensor keys = ops::contiguous(cx, ops::scale(cx, x, 1));
  for (int64_t head = 0; head < 2; ++head) {
    for (int64_t i = 60 * 16; i < 100 * 16; ++i) keys.data<float>()[head * 1600 + i] += 3;
  }
  const std::vector<float> after = scaled_dot_product(cx, x, keys, keys, p).to_vector<float>();
  for (size_t i = 0; i < before.size(); ++i) {
    if (i % 1600 < 60 * 16) {
      ASSERT_EQ(before[i], after[i]) << i;
    }
  }
  EXPECT_NE(before[70 * 16], after[70 * 16]);
}

}  // namespace
}  // namespace weft::attention
