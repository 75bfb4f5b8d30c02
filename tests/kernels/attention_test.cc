// Tiled attention against its plain composition of ops, in float64 and float32.
#include "kernels/attention/attention.h"

#include <limits>

#include "kernels/tensor/dispatch.h"
#include "tests/testing/gradient_check.h"

namespace weft::attention {
namespace {

using testing::Bench;
using testing::random_tensor;

struct Case {
  std::string name;
  int64_t rows = 2, heads = 3, key_heads = 3, queries = 5, keys = 5, features = 4;
  bool causal = false;
  std::string valid = "";  // "left", "right", "none": which keys of the rows are padding
  bool documents = false;
  int64_t query_offset = 0;  // positions of the queries start here
  double dropout = 0;
};

Tensor counted(Context& cx, Shape shape, const std::function<int64_t(int64_t, int64_t)>& f) {
  Tensor x = Tensor::empty(cx.allocator, shape, DType::kI64);
  for (int64_t i = 0; i < x.elements(); ++i) x.data<int64_t>()[i] = f(i / shape[1], i % shape[1]);
  return x;
}

Parameters parameters_of(Context& cx, const Case& c) {
  Parameters p;
  p.scale = 1 / std::sqrt(static_cast<double>(c.features));
  p.visibility.causal = c.causal;
  if (c.query_offset != 0) {
    p.visibility.query_position =
        counted(cx, {c.rows, c.queries}, [&](int64_t, int64_t i) { return i + c.query_offset; });
    p.visibility.key_position = counted(cx, {c.rows, c.keys}, [](int64_t, int64_t j) { return j; });
  }
  if (!c.valid.empty()) {
    Tensor valid = Tensor::full(cx.allocator, {c.rows, c.keys}, 1, DType::kU8);
    for (int64_t b = 0; b < c.rows; ++b) {
      for (int64_t j = 0; j < c.keys; ++j) {
        const bool padded = c.valid == "none"   ? b == 0
                            : c.valid == "left" ? j < b + 1
                                                : j > c.keys - b - 2;
        if (padded) valid.data<uint8_t>()[b * c.keys + j] = 0;
      }
    }
    p.visibility.key_valid = valid;
  }
  if (c.documents) {
    p.visibility.query_document =
        counted(cx, {c.rows, c.queries}, [](int64_t b, int64_t i) { return (i + b) / 3; });
    p.visibility.key_document =
        counted(cx, {c.rows, c.keys}, [](int64_t b, int64_t j) { return (j + b) / 3; });
  }
  p.dropout = {c.dropout, {5, 6}, c.rows + 1, c.heads + 2, c.queries + 3, c.keys + 1, 1, 2, 3, 1};
  return p;
}

bool visible(const Visibility& v, int64_t b, int64_t i, int64_t j, int64_t queries, int64_t keys) {
  const auto at = [](const Tensor& x, int64_t index, int64_t otherwise) {
    return x ? x.data<int64_t>()[index] : otherwise;
  };
  if (v.key_valid && v.key_valid.data<uint8_t>()[b * keys + j] == 0) return false;
  if (v.causal && at(v.key_position, b * keys + j, j) > at(v.query_position, b * queries + i, i))
    return false;
  return at(v.query_document, b * queries + i, 0) == at(v.key_document, b * keys + j, 0);
}

// softmax(scale q k^T + bias) * keep, times v: with ops only.
Tensor composition(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                   const Parameters& p) {
  const int64_t rows = q.dim(0), heads = q.dim(1), queries = q.dim(2), keys = k.dim(2);
  const Shape full{rows, heads, queries, keys};
  Tensor bias = Tensor::zeros(cx.allocator, {rows, 1, queries, keys}, q.dtype());
  Tensor keep = Tensor::full(cx.allocator, full, 1, q.dtype());
  dispatch_floating(q.dtype(), [&]<typename T>() {
    for (int64_t n = 0; n < bias.elements(); ++n) {
      const int64_t b = n / (queries * keys), i = n / keys % queries, j = n % keys;
      if (!visible(p.visibility, b, i, j, queries, keys))
        bias.data<T>()[n] = -std::numeric_limits<T>::infinity();
    }
    const WeightDropout& d = p.dropout;
    for (int64_t n = 0; n < keep.elements() && d.rate > 0; ++n) {
      const int64_t b = n / (heads * queries * keys), h = n / (queries * keys) % heads;
      const int64_t i = n / keys % queries, j = n % keys;
      const int64_t row_head = (d.first_row + b) * d.heads + d.first_head + h;
      const int64_t index = (row_head * d.queries + d.first_query + i) * d.keys + d.first_key + j;
      const bool kept =
          uniform_at(d.key, static_cast<uint64_t>(index)) >= static_cast<float>(d.rate);
      keep.data<T>()[n] = kept ? static_cast<T>(1 / (1 - d.rate)) : T{0};
    }
  });
  const int64_t group = heads / k.dim(1);
  const auto repeated = [&](const Tensor& x) {
    std::vector<Tensor> parts;
    for (int64_t h = 0; h < heads; ++h) parts.push_back(ops::slice(cx, x, 1, h / group, 1));
    return ops::concat(cx, parts, 1);
  };
  const std::vector<int> turned = {0, 1, 3, 2};
  const Tensor scores =
      ops::matmul(cx, ops::scale(cx, q, p.scale), ops::permute(cx, repeated(k), turned));
  const Tensor weights = ops::softmax(cx, ops::add(cx, scores, bias), -1);
  return ops::matmul(cx, ops::multiply(cx, weights, keep), repeated(v));
}

std::vector<Case> cases() {
  Case causal{"causal"};
  causal.causal = true;
  Case left = causal, right{"right_padding"}, none{"a_row_that_sees_nothing"};
  left.name = "causal_left_padding";  // the first queries see nothing at all
  left.valid = "left";
  right.valid = "right";
  none.valid = "none";
  Case documents = causal;
  documents.name = "documents";
  documents.documents = true;
  Case cross{"cross"}, grouped{"grouped_queries"}, later{"queries_after_keys"}, dropout{"dropout"};
  cross.queries = 7, cross.keys = 3;
  grouped.heads = 6, grouped.key_heads = 2;
  later.causal = true, later.queries = 2, later.keys = 7, later.query_offset = 4;
  dropout.dropout = 0.3, dropout.causal = true;
  Case one{"one"}, long_causal{"many_tiles"}, long_all{"many_tiles_of_everything"},
      no_keys{"no_keys"};
  one.rows = one.heads = one.key_heads = one.queries = one.keys = one.features = 1;
  long_causal.rows = 1, long_causal.heads = 2, long_causal.key_heads = 1, long_causal.queries = 150;
  long_causal.keys = 150, long_causal.causal = true, long_causal.dropout = 0.1;
  long_all = long_causal;
  long_all.name = "many_tiles_of_everything";
  long_all.rows = 2, long_all.keys = 269, long_all.query_offset = 101, long_all.valid = "left";
  long_all.documents = true;
  no_keys.keys = 0;
  Case no_rows{"no_rows"};
  no_rows.rows = 0;
  return {{"plain"}, causal,  left, right,       none,     documents, cross,  grouped,
          later,     dropout, one,  long_causal, long_all, no_keys,   no_rows};
}

class AttentionTest : public ::testing::TestWithParam<Case> {
 protected:
  struct Inputs {
    Tensor q, k, v;
  };
  template <typename T>
  Inputs inputs(Context& cx) {
    const Case& c = GetParam();
    Inputs in{random_tensor<T>(cx, {c.rows, c.heads, c.queries, c.features}, 1),
              random_tensor<T>(cx, {c.rows, c.key_heads, c.keys, c.features}, 2),
              random_tensor<T>(cx, {c.rows, c.key_heads, c.keys, c.features}, 3)};
    for (Tensor* x : {&in.q, &in.k, &in.v}) x->set_requires_grad(true);
    return in;
  }
  // Output and gradients of q, k, v.
  std::vector<std::vector<double>> results(Context& cx, const Inputs& in, bool tiled,
                                           const Tensor& seed) {
    Tape tape;
    Context recording = cx;
    recording.tape = &tape;
    const Parameters p = parameters_of(cx, GetParam());
    const Tensor y = tiled ? scaled_dot_product(recording, in.q, in.k, in.v, p)
                           : composition(recording, in.q, in.k, in.v, p);
    tape.backward(recording, y, ops::cast(cx, seed, y.dtype()));
    std::vector<std::vector<double>> all = {
        ops::cast(cx, y.detach(), DType::kF64).to_vector<double>()};
    for (const Tensor& x : {in.q, in.k, in.v}) {
      all.push_back(ops::cast(cx, x.grad(), DType::kF64).to_vector<double>());
      x.set_grad(Tensor());
    }
    return all;
  }
  static double worst(const std::vector<std::vector<double>>& a,
                      const std::vector<std::vector<double>>& b) {
    double error = 0;
    for (size_t t = 0; t < a.size(); ++t) {
      EXPECT_EQ(a[t].size(), b[t].size());
      for (size_t i = 0; i < a[t].size(); ++i) {
        EXPECT_FALSE(std::isnan(a[t][i]));
        error = std::max(error, std::abs(a[t][i] - b[t][i]));
      }
    }
    return error;
  }
  Bench bench_;
  Context& cx_ = bench_.context;
};

TEST_P(AttentionTest, IsTheCompositionInFloat64) {
  const Inputs in = inputs<double>(cx_);
  const Tensor seed = random_tensor(cx_, in.q.shape(), 4);
  EXPECT_LT(worst(results(cx_, in, true, seed), results(cx_, in, false, seed)), 1e-13);
}

// In float32 at most twice as far from float64 as the composition is in float32.
TEST_P(AttentionTest, Float32IsAsGoodAsTheComposition) {
  const Inputs wide = inputs<double>(cx_), narrow = inputs<float>(cx_);
  const Tensor seed = random_tensor(cx_, wide.q.shape(), 4);
  const auto exact = results(cx_, wide, false, seed);
  const double plain = worst(results(cx_, narrow, false, seed), exact);
  EXPECT_LE(worst(results(cx_, narrow, true, seed), exact), 2 * plain + 1e-6);
}

TEST_P(AttentionTest, AnyStridesGiveTheSame) {
  const Case& c = GetParam();
  const Inputs in = inputs<double>(cx_);
  const Parameters p = parameters_of(cx_, c);
  // [B, T, N, D] in memory, and features apart.
  const std::vector<int> by_token = {0, 2, 1, 3}, apart = {0, 1, 3, 2};
  const auto stored = [&](const Tensor& x, const std::vector<int>& order) {
    return ops::permute(cx_, ops::contiguous(cx_, ops::permute(cx_, x, order)), order);
  };
  const std::vector<double> expected =
      scaled_dot_product(cx_, in.q, in.k, in.v, p).to_vector<double>();
  const Tensor tokens = scaled_dot_product(cx_, stored(in.q, by_token), stored(in.k, by_token),
                                           stored(in.v, by_token), p);
  testing::expect_close(tokens, expected, 1e-14);
  const Tensor features =
      scaled_dot_product(cx_, stored(in.q, apart), stored(in.k, apart), stored(in.v, apart), p);
  testing::expect_close(features, expected, 1e-14);
}

// Blocks of keys in the order in which a ring brings them, and their gradients, give the whole.
TEST_P(AttentionTest, BlocksInRingOrderGiveTheWhole) {
  const Case& c = GetParam();
  if (c.keys < 3) return;
  const Inputs in = inputs<double>(cx_);
  const Tensor seed = random_tensor(cx_, in.q.shape(), 4);
  const auto expected = results(cx_, in, true, seed);
  Parameters p = parameters_of(cx_, c);
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
  Partial sum = block_forward(cx_, in.q, block(1, in.k, 2), block(1, in.v, 2), parameters(1));
  for (const int64_t part : {0, 2}) {
    merge(cx_, sum,
          block_forward(cx_, in.q, block(part, in.k, 2), block(part, in.v, 2), parameters(part)));
  }
  testing::expect_close(sum.output, expected[0], 1e-14);
  const Tensor delta = ops::sum(cx_, ops::multiply(cx_, sum.output, seed), -1);
  Tensor dq = Tensor::zeros(cx_.allocator, in.q.shape(), DType::kF64);
  std::vector<Tensor> dk, dv;
  for (int64_t part = 0; part < 3; ++part) {
    const BlockGrads grads = block_backward(cx_, in.q, block(part, in.k, 2), block(part, in.v, 2),
                                            seed, sum.log_sum_exp, delta, parameters(part));
    dq = ops::add(cx_, dq, grads.q);
    dk.push_back(grads.k);
    dv.push_back(grads.v);
  }
  testing::expect_close(dq, expected[1], 1e-13);
  testing::expect_close(ops::concat(cx_, dk, 2), expected[2], 1e-13);
  testing::expect_close(ops::concat(cx_, dv, 2), expected[3], 1e-13);
}

INSTANTIATE_TEST_SUITE_P(All, AttentionTest, ::testing::ValuesIn(cases()),
                         [](const auto& item) { return item.param.name; });

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
