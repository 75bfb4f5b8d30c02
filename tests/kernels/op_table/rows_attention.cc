// Attention by scores, local, structured and linear attention. Masks are int64 inputs of 0 and 1,
// so that some queries see nothing.
#include <algorithm>

#include "kernels/attention/hard.h"
#include "kernels/attention/linear.h"
#include "kernels/attention/local.h"
#include "kernels/attention/scores.h"
#include "kernels/attention/structured.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

using attention::Attended;

struct Sizes {
  int64_t batch, queries, keys, features, values;
};
const std::vector<Sizes>& many_sizes() {
  static const std::vector<Sizes> sizes{
      {2, 3, 5, 4, 3},  {1, 1, 1, 1, 1},  {0, 3, 5, 2, 2},   {2, 0, 3, 2, 2},  {2, 3, 5, 0, 1},
      {3, 2, 1, 5, 7},  {1, 7, 2, 3, 1},  {5, 1, 13, 2, 3},  {2, 11, 3, 1, 5}, {1, 13, 17, 3, 2},
      {2, 5, 37, 7, 4}, {1, 2, 3, 67, 5}, {3, 23, 29, 9, 11}};
  return sizes;
}

Tensor mask_of(Context& cx, const Tensor& numbers) {
  return ops::compare(cx, numbers, Tensor::zeros(cx.allocator, Shape{}, DType::kI64),
                      ops::Comparison::kNotEqual);
}

Outputs both(const Attended& attended) { return {attended.context, attended.weights}; }

// values, mask, q, k and what `more` adds for the sizes.
std::vector<Case> attending(std::vector<Input> (*more)(const Sizes&), bool keys = true,
                            const Attributes& attributes = {}) {
  std::vector<Case> cases;
  for (const Sizes& s : many_sizes()) {
    const bool shared = cases.size() % 2 == 1;  // the mask is that of the keys
    std::vector<Input> inputs{real({s.batch, s.keys, s.values}),
                              index({s.batch, shared ? 1 : s.queries, s.keys}, 0, 2),
                              real({s.batch, s.queries, s.features})};
    if (keys) inputs.push_back(real({s.batch, s.keys, s.features + 1}));
    for (Input& input : more(s)) inputs.push_back(std::move(input));
    cases.push_back({std::move(inputs), attributes});
  }
  return cases;
}

std::vector<Input> additive_parameters(const Sizes& s) {
  const int64_t a = s.features + 2;
  return {real({a, s.features}), real({a, s.features + 1}), real({a}), real({a})};
}

std::vector<Input> with_gain(const Sizes& s) {
  std::vector<Input> inputs = additive_parameters(s);
  inputs.push_back(positive({1}));
  return inputs;
}

Outputs additive(Context& cx, Inputs x, const Attributes&) {
  const attention::Additive parameters{x[4], x[5], x[6], x[7], x.size() > 8 ? x[8] : Tensor()};
  const Tensor scores = attention::additive_scores(cx, x[2], x[3], parameters);
  return both(attention::attend(cx, scores, x[0], mask_of(cx, x[1])));
}

// v . tanh(q + k) with the sums of all pairs in memory.
Outputs compared_whole(Context& cx, Inputs x, const Attributes&) {
  const Shape &q = x[0].shape(), &k = x[1].shape();
  const Tensor pairs = ops::add(cx, ops::reshape(cx, x[0], Shape{q[0], q[1], 1, q[2]}),
                                ops::reshape(cx, x[1], Shape{k[0], 1, k[1], k[2]}));
  const Tensor bent = ops::activate(cx, pairs, ops::Activation::kTanh);
  return {ops::sum(cx, ops::multiply(cx, bent, x[2]), -1)};
}

// The same from plain ops: softmax of v . tanh(W q + b + U k), v = gain v / |v| where there is one.
Outputs additive_whole(Context& cx, Inputs x, const Attributes& attributes) {
  constexpr int kTurned[] = {1, 0};
  const auto times = [&](const Tensor& rows, const Tensor& weight) {
    return ops::matmul(cx, rows, ops::permute(cx, weight, kTurned));
  };
  Tensor v = x[6];
  if (x.size() > 8) {
    const Tensor length = ops::sqrt(cx, ops::sum(cx, ops::multiply(cx, v, v), -1, true));
    v = ops::divide(cx, ops::multiply(cx, v, x[8]), length);
  }
  const std::array<Tensor, 3> compared = {ops::add(cx, times(x[2], x[4]), x[7]), times(x[3], x[5]),
                                          v};
  const Tensor scores = compared_whole(cx, compared, attributes)[0];
  return both(attention::attend(cx, scores, x[0], mask_of(cx, x[1])));
}

std::vector<Case> comparisons() {
  std::vector<Case> cases;
  for (const Sizes& s : many_sizes()) {
    cases.push_back({{real({s.batch, s.queries, s.features}), real({s.batch, s.keys, s.features}),
                      real({s.features})},
                     {}});
  }
  cases.push_back({{real({2, 31, 130}), real({2, 17, 130}), real({130})}, {}});
  return cases;
}

Outputs luong_dot(Context& cx, Inputs x, const Attributes&) {
  const Tensor k = ops::slice(cx, x[3], 2, 1, x[2].dim(2));
  return both(attention::attend(cx, attention::dot_scores(cx, x[2], k), x[0], mask_of(cx, x[1])));
}

Outputs luong_general(Context& cx, Inputs x, const Attributes&) {
  const Tensor scores = attention::general_scores(cx, x[2], x[3], x[4]);
  return both(attention::attend(cx, scores, x[0], mask_of(cx, x[1])));
}

// The context, and the state that is made of it.
Outputs luong_concat(Context& cx, Inputs x, const Attributes&) {
  const Tensor scores = attention::concat_scores(cx, x[2], x[3], x[4], x[5]);
  const Attended attended = attention::attend(cx, scores, x[0], mask_of(cx, x[1]));
  return {attended.context, attention::attentional_state(cx, attended.context, x[2], x[6])};
}

Outputs luong_location(Context& cx, Inputs x, const Attributes&) {
  const Tensor scores = attention::location_scores(cx, x[2], x[3], x[0].dim(1));
  return both(attention::attend(cx, scores, x[0], mask_of(cx, x[1])));
}

// Scores, values, mask and, for the predictive form, positions within and a little beyond the keys.
std::vector<Case> local(bool predictive) {
  std::vector<Case> cases;
  for (const Sizes& s : many_sizes()) {
    Case item{{real({s.batch, s.queries, s.keys}), real({s.batch, s.keys, s.values}),
               index({s.batch, 1, s.keys}, 0, 4)},
              {{"half_width", {1.0 + static_cast<double>(cases.size() % 3)}},
               {"first_query", {static_cast<double>(cases.size() % 2)}}}};
    if (predictive) item.inputs.push_back(positive({s.batch, s.queries}));
    cases.push_back(std::move(item));
  }
  return cases;
}

Outputs local_monotonic(Context& cx, Inputs x, const Attributes& a) {
  return both(attention::local_monotonic(cx, x[0], x[1], a.real("half_width"), mask_of(cx, x[2]),
                                         a.integer("first_query")));
}

Outputs local_predictive(Context& cx, Inputs x, const Attributes& a) {
  return both(
      attention::local_predictive(cx, x[0], x[1], x[3], a.real("half_width"), mask_of(cx, x[2])));
}

Outputs predicted_position(Context& cx, Inputs x, const Attributes&) {
  return {attention::predicted_position(cx, x[0], x[1], x[2], x[3])};
}

std::vector<Case> predictions() {
  std::vector<Case> cases;
  for (const Sizes& s : many_sizes()) {
    cases.push_back({{real({s.batch, s.queries, s.features}), real({s.values, s.features}),
                      real({s.values}), index({s.batch}, 1, 2 + s.keys)},
                     {}});
  }
  return cases;
}

struct HeadSizes {
  int64_t batch, heads, queries, keys, features, values;
};
// q, k, v.
std::vector<Case> with_heads(const std::vector<HeadSizes>& sizes, const Attributes& attributes) {
  std::vector<Case> cases;
  for (const HeadSizes& s : sizes) {
    cases.push_back(
        {{real({s.batch, s.heads, s.queries, s.features}),
          real({s.batch, s.heads, s.keys, s.features}), real({s.batch, s.heads, s.keys, s.values})},
         attributes});
  }
  return cases;
}
const std::vector<HeadSizes>& sequences() {
  static const std::vector<HeadSizes> sizes{
      {2, 3, 5, 5, 4, 3},   {1, 1, 1, 1, 1, 1},     {0, 2, 3, 3, 2, 2},   {2, 2, 0, 0, 3, 2},
      {1, 2, 7, 7, 1, 5},   {1, 1, 64, 64, 3, 2},   {1, 2, 65, 65, 2, 1}, {3, 1, 13, 13, 5, 7},
      {2, 1, 37, 37, 3, 3}, {1, 1, 131, 131, 2, 3}, {1, 3, 11, 11, 7, 1}, {2, 2, 67, 67, 17, 9}};
  return sizes;
}

Outputs windowed(Context& cx, Inputs x, const Attributes& a) {
  return {attention::window_attention(cx, x[0], x[1], x[2], a.real("scale"), a.integer("width"),
                                      a.flag("causal"))};
}

Outputs in_blocks(Context& cx, Inputs x, const Attributes& a) {
  return {attention::block_attention(cx, x[0], x[1], x[2], a.real("scale"), a.integer("width"),
                                     a.flag("causal"))};
}

std::vector<Case> neighbours() {
  return all({with_heads(sequences(), {{"scale", {0.7}}, {"width", {3}}, {"causal", {0}}}),
              with_heads(sequences(), {{"scale", {0.5}}, {"width", {16}}, {"causal", {1}}})});
}

Outputs structured(Context& cx, Inputs x, const Attributes&) {
  return both(attention::structured_self_attention(cx, x[0], x[1], x[2], mask_of(cx, x[3])));
}

std::vector<Case> sentences() {
  std::vector<Case> cases;
  for (const Sizes& s : many_sizes()) {
    cases.push_back({{real({s.batch, s.keys, s.features}), real({s.values + 1, s.features}),
                      real({s.queries, s.values + 1}), index({s.batch, s.keys}, 0, 3)},
                     {}});
  }
  return cases;
}

std::vector<Case> hops() {
  std::vector<Case> cases;
  for (const Sizes& s : many_sizes()) cases.push_back({{unit({s.batch, s.queries, s.keys})}, {}});
  return cases;
}

Outputs linear_attended(Context& cx, Inputs x, const Attributes& a) {
  return {attention::linear_attention(cx, x[0], x[1], x[2], a.flag("causal"),
                                      x.size() > 3 ? mask_of(cx, x[3]) : Tensor())};
}

std::vector<Case> linear_cases() {
  const Attributes causal{{"causal", {1}}}, whole{{"causal", {0}}};
  const std::vector<HeadSizes> crossed{
      {2, 3, 5, 4, 3, 2}, {1, 1, 3, 0, 2, 2}, {2, 1, 1, 67, 5, 3}, {1, 2, 13, 2, 1, 4}};
  std::vector<Case> cases = all({with_heads(sequences(), causal), with_heads(sequences(), whole),
                                 with_heads(crossed, whole)});
  for (size_t i = 0; i < cases.size(); i += 2) {
    const Shape& k = cases[i].inputs[1].shape;
    cases[i].inputs.push_back(index({k[0], k[2]}, 0, 2));
  }
  return cases;
}

// Which of [tokens, tokens] lie at or before (reversed: at or after) the query.
Tensor triangle(Context& cx, int64_t tokens, bool reversed) {
  std::vector<uint8_t> mask;
  for (int64_t i = 0; i < tokens * tokens; ++i) {
    const int64_t row = i / tokens, column = i % tokens;
    mask.push_back(reversed ? column >= row : column <= row);
  }
  return Tensor::from<uint8_t>(cx.allocator, Shape{tokens, tokens}, mask);
}

// Products of all pairs, 0 where `visible` (or an empty handle) says so.
Tensor pair_scores(Context& cx, const Tensor& q, const Tensor& k, const Tensor& visible) {
  const std::vector<int> turned{0, 1, 3, 2};
  const Tensor scores = ops::matmul(cx, q, ops::permute(cx, k, turned));
  const Tensor zero = Tensor::zeros(cx.allocator, Shape{}, scores.dtype());
  return visible ? ops::where(cx, visible, scores, zero) : scores;
}

// With all scores in memory.
Outputs linear_composed(Context& cx, Inputs x, const Attributes& a) {
  const Tensor mask = a.flag("causal") ? triangle(cx, x[0].dim(2), false) : Tensor();
  const Tensor q = ops::elu_plus_one(cx, x[0]), k = ops::elu_plus_one(cx, x[1]);
  Tensor scores = pair_scores(cx, q, k, mask);
  const Tensor zero = Tensor::zeros(cx.allocator, Shape{}, scores.dtype());
  const Tensor one = Tensor::full(cx.allocator, Shape{}, 1, scores.dtype());
  if (x.size() > 3) {
    const Tensor valid = ops::reshape(cx, mask_of(cx, x[3]), Shape{k.dim(0), 1, 1, k.dim(2)});
    scores = ops::where(cx, valid, scores, zero);
  }
  const Tensor total = ops::sum(cx, scores, -1, true);
  const Tensor seen = ops::compare(cx, total.detach(), zero, ops::Comparison::kNotEqual);
  const Tensor weights = ops::divide(cx, scores, ops::where(cx, seen, total, one));
  return {ops::matmul(cx, weights, x[2])};
}

Outputs prefix_composed(Context& cx, Inputs x, const Attributes& a) {
  const Tensor mask = triangle(cx, x[0].dim(2), a.flag("reversed"));
  return {ops::matmul(cx, pair_scores(cx, x[0], x[1], mask), x[2])};
}

Outputs prefix(Context& cx, Inputs x, const Attributes& a) {
  return {attention::prefix_product(cx, x[0], x[1], x[2], a.flag("reversed"))};
}

// Scores, values and a mask; the queries are a part of more.
std::vector<Case> draws() {
  std::vector<Case> cases;
  for (const Sizes& s : many_sizes()) {
    cases.push_back({{real({s.batch, s.queries, s.keys}), real({s.batch, s.keys, s.values}),
                      index({s.batch, s.queries, s.keys}, 0, 3)},
                     {{"seed", {3}},
                      {"stream", {8}},
                      {"global", {static_cast<double>(s.batch + 2), 31}},
                      {"offset", {1, 5}}}});
  }
  return cases;
}

attention::Choice chosen(Context& cx, Inputs x, const Attributes& a) {
  const RandomKey key{static_cast<uint64_t>(a.integer("seed")),
                      static_cast<uint64_t>(a.integer("stream"))};
  return attention::choose(cx, x[0], mask_of(cx, x[2]), key,
                           {Shape(a.integers("global")), a.integers("offset")});
}

Outputs hard(Context& cx, Inputs x, const Attributes& a) {
  const attention::Choice choice = chosen(cx, x, a);
  return {attention::chosen_values(cx, x[1], choice.index), choice.log_probability, choice.entropy,
          choice.weights, choice.index};
}

Outputs hard_straight_through(Context& cx, Inputs x, const Attributes& a) {
  const attention::Choice choice = chosen(cx, x, a);
  return {ops::matmul(cx, attention::straight_through(cx, choice.weights, choice.index), x[1])};
}

// Log-probabilities and losses.
Outputs reinforced(Context& cx, Inputs x, const Attributes&) {
  return {attention::reinforce(cx, x[0], x[1], 0.75)};
}

std::vector<Case> rewards() {
  std::vector<Case> cases;
  for (const Shape& shape : many_shapes()) cases.push_back({{real(shape), constant(shape)}, {}});
  return cases;
}

}  // namespace

std::vector<Row> attention_rows() {
  return {
      {"additive_attention", additive, attending(additive_parameters), additive_whole, 16},
      // The gain's gradient sums over queries and keys what cancels within each query.
      {"additive_attention_normalized", additive, attending(with_gain), additive_whole, 64},
      {"compared",
       [](Context& cx, Inputs x, const Attributes&) {
         return Outputs{attention::compared(cx, x[0], x[1], x[2])};
       },
       comparisons(), compared_whole},
      {"luong_dot", luong_dot, attending([](const Sizes&) { return std::vector<Input>{}; }),
       nullptr, 16},
      {"luong_general", luong_general, attending([](const Sizes& s) {
         return std::vector<Input>{real({s.features, s.features + 1})};
       }),
       nullptr, 16},
      {"luong_concat", luong_concat, attending([](const Sizes& s) {
         return std::vector<Input>{real({3, 2 * s.features + 1}), real({3}),
                                   real({2, s.values + s.features})};
       }),
       nullptr, 16},
      {"luong_location", luong_location,
       attending(
           [](const Sizes& s) {
             return std::vector<Input>{real({s.keys + 2, s.features})};
           },
           false),
       nullptr, 16},
      {"local_monotonic", local_monotonic, local(false), nullptr, 16},
      {"local_predictive", local_predictive, local(true), nullptr, 16},
      {"predicted_position", predicted_position, predictions(), nullptr, 16},
      {"window_attention", windowed, neighbours(), nullptr, 16},
      {"block_attention", in_blocks, neighbours(), nullptr, 16},
      {"structured_self_attention", structured, sentences(), nullptr, 16},
      {"structured_penalty", unary<attention::structured_penalty>, hops(), nullptr, 16},
      {"hard_attention", hard, draws(), nullptr, 16},
      {"straight_through", hard_straight_through, draws(), nullptr, 16, false},
      {"reinforce", reinforced, rewards(), nullptr, 16},
      {"linear_attention", linear_attended, linear_cases(), linear_composed, 32},
      {"prefix_product", prefix,
       all({with_heads(sequences(), {{"reversed", {0}}}),
            with_heads(sequences(), {{"reversed", {1}}})}),
       prefix_composed},
  };
}

}  // namespace weft::op_table
