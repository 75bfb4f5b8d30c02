#include "tests/kernels/attention_cases.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <ostream>

#include "kernels/ops/ops.h"
#include "kernels/tensor/dispatch.h"
#include "tests/testing/gradient_check.h"

namespace weft::attention {
namespace {

constexpr double kHidden = -std::numeric_limits<double>::infinity();

Shape score_shape(const Case& c, const std::string& dims) {
  const bool rows = dims == "whole" || dims == "row", heads = dims == "whole" || dims == "head";
  return {rows ? c.rows : 1, heads ? c.heads : 1, c.queries, c.keys};
}

Tensor padding(Context& cx, const Case& c) {
  Tensor valid = Tensor::full(cx.allocator, {c.rows, c.keys}, 1, DType::kU8);
  for (int64_t b = 0; b < c.rows; ++b) {
    for (int64_t j = 0; j < c.keys; ++j) {
      const bool padded = c.valid == "none"   ? b == 0
                          : c.valid == "left" ? j < b + 1
                                              : j > c.keys - b - 2;
      if (padded) valid.data<uint8_t>()[b * c.keys + j] = 0;
    }
  }
  return valid;
}

// Two of three are visible; to the second query nothing is.
Tensor drawn_mask(Context& cx, const Case& c) {
  const Tensor mask = Tensor::empty(cx.allocator, score_shape(c, c.mask), DType::kU8);
  for (int64_t i = 0; i < mask.elements(); ++i) {
    const bool second = i / c.keys % c.queries == 1;
    mask.data<uint8_t>()[i] = !second && uniform_at({3, 4}, static_cast<uint64_t>(i)) < 0.67F;
  }
  return mask;
}

struct Seen {
  const Visibility& v;
  int64_t queries, keys;

  static int64_t at(const Tensor& x, int64_t index, int64_t otherwise) {
    return x ? x.data<int64_t>()[index] : otherwise;
  }
  int64_t apart(int64_t b, int64_t i, int64_t j) const {
    return at(v.key_position, b * keys + j, j) - at(v.query_position, b * queries + i, i);
  }
  bool operator()(int64_t b, int64_t h, int64_t i, int64_t j) const {
    if (v.key_valid && v.key_valid.data<uint8_t>()[b * keys + j] == 0) return false;
    const int64_t distance = apart(b, i, j);
    if (v.causal && distance > 0) return false;
    if (v.window_left >= 0 && distance < -v.window_left) return false;
    if (v.window_right >= 0 && distance > v.window_right) return false;
    if (v.mask) {
      const int64_t row = v.mask.dim(0) == 1 ? 0 : b, head = v.mask.dim(1) == 1 ? 0 : h;
      const int64_t at = ((row * v.mask.dim(1) + head) * queries + i) * keys + j;
      if (v.mask.data<uint8_t>()[at] == 0) return false;
    }
    return at(v.query_document, b * queries + i, 0) == at(v.key_document, b * keys + j, 0);
  }
};

double kept(const WeightDropout& d, int64_t b, int64_t h, int64_t i, int64_t j) {
  if (d.rate == 0) return 1;
  const int64_t row_head = (d.first_row + b) * d.heads + d.first_head + h;
  const int64_t index = (row_head * d.queries + d.first_query + i) * d.keys + d.first_key + j;
  const DropRule rule(d.rate);
  return kept_at(d.key, static_cast<uint64_t>(index), rule.dropped) ? rule.factor : 0;
}

// A constant [B, N, Tq, Tk] in `dtype`.
template <typename F>
Tensor drawn(Context& cx, const Shape& shape, DType dtype, F f) {
  const Tensor x = Tensor::empty(cx.allocator, shape, DType::kF64);
  int64_t n = 0;
  for (int64_t b = 0; b < shape[0]; ++b) {
    for (int64_t h = 0; h < shape[1]; ++h) {
      for (int64_t i = 0; i < shape[2]; ++i) {
        for (int64_t j = 0; j < shape[3]; ++j) x.data<double>()[n++] = f(b, h, i, j);
      }
    }
  }
  return ops::cast(cx, x, dtype);
}

Tensor repeated(Context& cx, const Tensor& x, int64_t heads) {
  const int64_t group = heads / x.dim(1);
  std::vector<Tensor> parts;
  for (int64_t h = 0; h < heads; ++h) parts.push_back(ops::slice(cx, x, 1, h / group, 1));
  return ops::concat(cx, parts, 1);
}

// Softmax over the keys and a column of sinks, which is dropped again.
Tensor softmax_with_sinks(Context& cx, const Tensor& scores, const Tensor& sinks) {
  const int64_t heads = scores.dim(1), keys = scores.dim(3);
  const Tensor column = ops::add(
      cx, ops::reshape(cx, sinks, {1, heads, 1, 1}),
      Tensor::zeros(cx.allocator, {scores.dim(0), heads, scores.dim(2), 1}, scores.dtype()));
  const std::vector<Tensor> both{scores, column};
  return ops::slice(cx, ops::softmax(cx, ops::concat(cx, both, 3), -1), 3, 0, keys);
}

std::vector<Case> masked_cases() {
  Case causal{"causal"};
  causal.causal = true;
  Case left = causal, right{"right_padding"}, none{"a_row_that_sees_nothing"};
  left.name = "causal_left_padding";  // the first queries see nothing at all
  left.valid = "left";
  right.valid = "right";
  none.valid = "none";
  Case documents = causal;
  documents.name = "documents", documents.document = 3;
  Case later{"queries_after_keys"};
  later.causal = true, later.queries = 2, later.keys = 7, later.query_offset = 4;
  Case window{"window"}, behind{"window_behind"}, ahead{"window_ahead"};
  window.left = 1, window.right = 2, window.queries = 9, window.keys = 9;
  behind.left = 2, behind.causal = true, behind.queries = 9, behind.keys = 9;
  ahead.right = 1, ahead.queries = 6, ahead.keys = 9, ahead.query_offset = 2;
  Case apart{"window_that_sees_nothing"};
  apart.left = 1, apart.right = 1, apart.query_offset = 3;
  std::vector<Case> all{causal, left, right, none, documents, later, window, behind, ahead, apart};
  for (const char* dims : {"whole", "row", "head", "shared"}) {
    Case mask{std::string("mask_") + dims}, bias{std::string("bias_") + dims};
    mask.mask = dims;
    mask.keys = 7;
    bias.bias = dims;
    bias.keys = 7;
    all.push_back(mask);
    all.push_back(bias);
  }
  return all;
}

std::vector<Case> scored_cases() {
  Case grouped{"grouped_queries"}, one_key_head{"multi_query"}, cross{"cross"}, wide{"wide_values"};
  grouped.heads = 6, grouped.key_heads = 2;
  one_key_head.heads = 4, one_key_head.key_heads = 1, one_key_head.causal = true;
  cross.queries = 7, cross.keys = 3;
  wide.features = 5, wide.value_features = 9;
  Case narrow{"narrow_values"};
  narrow.features = 7, narrow.value_features = 1;
  Case cap{"soft_cap"}, alibi{"alibi"}, sinks{"sinks"}, dropout{"dropout"}, scale{"scale"};
  cap.soft_cap = 1.5, cap.scale = 2;
  alibi.alibi = true, alibi.queries = 4, alibi.keys = 6, alibi.query_offset = 2;
  sinks.sinks = true, sinks.causal = true, sinks.valid = "left";
  dropout.dropout = 0.3, dropout.causal = true;
  scale.scale = -0.7;
  Case everything{"everything"};
  everything.heads = 4, everything.key_heads = 2, everything.queries = 6, everything.keys = 8;
  everything.value_features = 3, everything.causal = true, everything.left = 5;
  everything.query_offset = 2, everything.document = 4, everything.valid = "right";
  everything.mask = "head", everything.bias = "row", everything.alibi = true;
  everything.soft_cap = 2, everything.sinks = true, everything.dropout = 0.2;
  Case one{"one"};
  one.rows = one.heads = one.key_heads = one.queries = one.keys = one.features = 1;
  return {grouped, one_key_head, cross,   wide,  narrow,     cap,
          alibi,   sinks,        dropout, scale, everything, one};
}

std::vector<Case> distance_cases() {
  Case within{"distance_bias"}, all_one{"distance_bias_of_one_entry"},
      beyond{"distance_bias_beyond"};
  within.reach = 6, within.queries = 4, within.keys = 6, within.query_offset = 2;
  all_one.reach = 0, all_one.sinks = true;  // without sinks its gradient is 0, errors are chance
  beyond.reach = 2, beyond.queries = 9, beyond.keys = 8, beyond.key_heads = 1, beyond.causal = true;
  beyond.left = 5, beyond.alibi = true, beyond.soft_cap = 2, beyond.scale = 2;
  Case apart{"distance_bias_of_far_queries"}, dropped{"distance_bias_of_everything"};
  apart.reach = 3, apart.query_offset = 40, apart.valid = "left";
  dropped.reach = 2, dropped.heads = 4, dropped.key_heads = 2, dropped.queries = dropped.keys = 8;
  dropped.dropout = 0.2, dropped.document = 3, dropped.sinks = true, dropped.bias = "row";
  dropped.mask = "head", dropped.valid = "right";
  Case anew{"distance_bias_of_positions_that_restart"};
  anew.reach = 3, anew.restart = 4, anew.queries = anew.keys = 9, anew.document = 4;
  Case far{"many_tiles_by_distance"};
  far.rows = 2, far.heads = far.key_heads = 2, far.queries = 150, far.keys = 200, far.reach = 20;
  far.dropout = 0.1;
  Case whole = far, packed = far, chunks = far, grouped = far;
  whole.name = "many_tiles_by_every_distance";
  whole.reach = 260, whole.causal = true, whole.query_offset = 50, whole.soft_cap = 2;
  packed.name = "many_tiles_by_distance_in_documents";
  packed.restart = packed.document = 90, packed.queries = packed.keys, packed.causal = true;
  packed.reach = 70;
  chunks.name = "many_tiles_and_chunks_by_distance";
  chunks.rows = 1, chunks.keys = 530, chunks.features = 17, chunks.dropout = 0, chunks.reach = 100;
  grouped.name = "many_tiles_of_groups_by_distance";
  grouped.rows = 1, grouped.heads = 6, grouped.key_heads = 1, grouped.left = 70, grouped.reach = 64;
  return {within, all_one, beyond, apart, dropped, anew, far, whole, packed, chunks, grouped};
}

std::vector<Case> long_cases() {
  Case causal{"many_tiles"};
  causal.rows = 1, causal.heads = 2, causal.key_heads = 1, causal.queries = causal.keys = 150;
  causal.causal = true, causal.dropout = 0.1;
  Case all = causal, plain = causal, window = causal, everything = causal;
  all.name = "many_tiles_of_everything";
  all.rows = 2, all.keys = 269, all.query_offset = 101, all.valid = "left", all.document = 40;
  plain.name = "many_tiles_and_chunks";
  plain.keys = 530, plain.causal = false, plain.features = 17, plain.dropout = 0;
  window.name = "many_tiles_of_a_window";
  window.keys = window.queries = 331, window.left = 37, window.dropout = 0;
  everything.name = "many_tiles_of_every_kind";
  everything.heads = 4, everything.key_heads = 2, everything.features = 20;
  everything.value_features = 35, everything.left = 100, everything.document = 70;
  everything.keys = 200, everything.query_offset = 50, everything.mask = "shared";
  everything.bias = "head", everything.alibi = true, everything.soft_cap = 3;
  everything.sinks = true;
  Case packed = causal;
  packed.name = "many_tiles_of_documents";
  packed.queries = packed.keys = 400, packed.document = 90, packed.dropout = 0;
  packed.heads = packed.key_heads = 3;
  return {causal, all, plain, window, everything, packed};
}

}  // namespace

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

std::vector<Case> cases() {
  Case no_keys{"no_keys"}, no_rows{"no_rows"}, no_queries{"no_queries"};
  no_keys.keys = 0;
  no_rows.rows = 0;
  no_queries.queries = 0;
  std::vector<Case> all{{"plain"}, no_keys, no_rows, no_queries};
  for (const std::vector<Case>& part :
       {masked_cases(), scored_cases(), distance_cases(), long_cases()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

std::vector<Case> drawn_cases() {
  uint64_t draws = 0;
  const auto among = [&](const auto& choices) {
    const double at = static_cast<double>(uniform_at({41, 2}, draws++));
    return choices[static_cast<size_t>(at * static_cast<double>(std::size(choices)))];
  };
  const int64_t few[] = {1, 2}, tokens[] = {1, 2, 5, 17, 63, 65, 80};
  const int64_t features[] = {1, 2, 7, 33}, widths[] = {-1, -1, 0, 1, 3, 20};
  const int64_t documents[] = {0, 0, 1, 4, 30}, offsets[] = {0, 0, 3, 40};
  const std::string valid[] = {"", "", "left", "right", "none"};
  const std::string dims[] = {"", "", "", "whole", "row", "head", "shared"};
  const bool sometimes[] = {false, false, true};
  std::vector<Case> all;
  for (int i = 0; i < 32; ++i) {
    Case c{"drawn_" + std::to_string(i)};
    c.rows = among(few), c.key_heads = among(few), c.heads = c.key_heads * among(few);
    c.queries = among(tokens), c.keys = among(tokens);
    c.features = among(features), c.value_features = among(features);
    c.causal = among(sometimes), c.left = among(widths), c.right = among(widths);
    c.valid = among(valid), c.document = among(documents), c.query_offset = among(offsets);
    c.dropout = among(sometimes) ? 0.4 : 0, c.soft_cap = among(sometimes) ? 1.5 : 0;
    c.alibi = among(sometimes), c.sinks = among(sometimes);
    c.mask = among(dims), c.bias = among(dims);
    if (i % 3 == 0) c.reach = i;
    all.push_back(c);
  }
  return all;
}

Inputs inputs_of(Context& cx, const Case& c, DType dtype, bool rounded) {
  std::vector<Shape> shapes = {{c.rows, c.heads, c.queries, c.features},
                               {c.rows, c.key_heads, c.keys, c.features},
                               {c.rows, c.key_heads, c.keys, c.values()}};
  if (!c.bias.empty()) shapes.push_back(score_shape(c, c.bias));
  if (c.reach >= 0) shapes.push_back({c.heads, 2 * c.reach + 1});
  if (c.sinks) shapes.push_back({c.heads});
  Inputs inputs;
  uint64_t seed = 1;
  for (const Shape& shape : shapes) {
    Tensor x = testing::random_tensor(cx, shape, seed++);
    if (rounded) x = ops::cast(cx, x, DType::kBF16);
    x = ops::cast(cx, x, dtype).detach();
    inputs.all.push_back(x.set_requires_grad(true));
  }
  return inputs;
}

Tensor kept_weights(Context& cx, const Shape& shape, const WeightDropout& dropout, DType dtype) {
  return drawn(cx, shape, dtype, [&](int64_t b, int64_t h, int64_t i, int64_t j) {
    return kept(dropout, b, h, i, j);
  });
}

Tensor counted(Context& cx, Shape shape, const std::function<int64_t(int64_t, int64_t)>& f) {
  Tensor x = Tensor::empty(cx.allocator, shape, DType::kI64);
  for (int64_t i = 0; i < x.elements(); ++i) x.data<int64_t>()[i] = f(i / shape[1], i % shape[1]);
  return x;
}

Parameters parameters_of(Context& cx, const Case& c, std::span<const Tensor> inputs) {
  Parameters p;
  p.scale = c.scale == 0 ? 1 / std::sqrt(static_cast<double>(c.features)) : c.scale;
  p.soft_cap = c.soft_cap;
  for (int64_t h = 0; h < c.heads && c.alibi; ++h) {
    p.alibi_slopes.push_back(std::exp2(-static_cast<double>(h + 1)));
  }
  if (!c.bias.empty()) p.bias = inputs[3];
  if (c.reach >= 0) p.distance_bias = inputs[c.bias.empty() ? 3 : 4];
  if (c.sinks) p.sinks = inputs.back();
  Visibility& seen = p.visibility;
  seen.causal = c.causal;
  seen.window_left = c.left;
  seen.window_right = c.right;
  if (c.query_offset != 0 || c.restart != 0) {
    const auto position = [&](int64_t b, int64_t i) {
      return c.restart == 0 ? i : (i + b) % c.restart;
    };
    seen.query_position = counted(cx, {c.rows, c.queries}, [&](int64_t b, int64_t i) {
      return position(b, i) + c.query_offset;
    });
    seen.key_position = counted(cx, {c.rows, c.keys}, position);
  }
  if (!c.valid.empty()) seen.key_valid = padding(cx, c);
  if (c.document > 0) {
    const auto document = [&](int64_t b, int64_t i) { return (i + b) / c.document; };
    seen.query_document = counted(cx, {c.rows, c.queries}, document);
    seen.key_document = counted(cx, {c.rows, c.keys}, document);
  }
  if (!c.mask.empty()) seen.mask = drawn_mask(cx, c);
  p.dropout = {c.dropout, {5, 6}, c.rows + 1, c.heads + 2, c.queries + 3, c.keys + 1, 1, 2, 3, 1};
  return p;
}

Tensor bias_by_distance(Context& cx, const Tensor& table, const Visibility& positions, int64_t rows,
                        int64_t queries, int64_t keys) {
  const Seen seen{positions, queries, keys};
  const int64_t reach = (table.dim(1) - 1) / 2;
  const Tensor entries = counted(cx, {rows, queries * keys}, [&](int64_t b, int64_t at) {
    return reach + std::clamp(seen.apart(b, at / keys, at % keys), -reach, reach);
  });
  const Tensor found = ops::embedding(cx, entries, ops::permute(cx, table, std::vector{1, 0}));
  return ops::permute(cx, ops::reshape(cx, found, {rows, queries, keys, table.dim(0)}),
                      std::vector{0, 3, 1, 2});
}

Tensor composition(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                   const Parameters& p) {
  const int64_t heads = q.dim(1), queries = q.dim(2), keys = k.dim(2);
  const Shape full{q.dim(0), heads, queries, keys};
  const Seen seen{p.visibility, queries, keys};
  const std::vector<int> turned = {0, 1, 3, 2};
  const DType dtype = q.dtype();
  Tensor scores =
      ops::matmul(cx, ops::scale(cx, q, p.scale), ops::permute(cx, repeated(cx, k, heads), turned));
  if (p.soft_cap > 0) {
    scores = ops::scale(
        cx, ops::activate(cx, ops::scale(cx, scores, 1 / p.soft_cap), ops::Activation::kTanh),
        p.soft_cap);
  }
  if (!p.alibi_slopes.empty()) {
    const auto bend = [&](int64_t b, int64_t h, int64_t i, int64_t j) {
      return -p.alibi_slopes[static_cast<size_t>(h)] *
             static_cast<double>(std::abs(seen.apart(b, i, j)));
    };
    scores = ops::add(cx, scores, drawn(cx, full, dtype, bend));
  }
  if (p.bias) scores = ops::add(cx, scores, p.bias);
  if (p.distance_bias) {
    const Tensor bias =
        bias_by_distance(cx, p.distance_bias, p.visibility, q.dim(0), queries, keys);
    scores = ops::add(cx, scores, bias);
  }
  const auto hidden = [&](int64_t b, int64_t h, int64_t i, int64_t j) {
    return seen(b, h, i, j) ? 0 : kHidden;
  };
  scores = ops::add(cx, scores, drawn(cx, full, dtype, hidden));
  Tensor weights = p.sinks ? softmax_with_sinks(cx, scores, p.sinks) : ops::softmax(cx, scores, -1);
  if (p.dropout.rate > 0) {
    weights = ops::multiply(cx, weights, kept_weights(cx, full, p.dropout, dtype));
  }
  return ops::matmul(cx, weights, repeated(cx, v, heads));
}

}  // namespace weft::attention
