// Attention by distance and segment. Masks are int64 inputs of 0 and 1, so that some queries see
// nothing. The last input of cases with "placed" is where the queries stand.
#include <algorithm>
#include <cmath>

#include "kernels/attention/relative.h"
#include "kernels/attention/scores.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/indexing.h"
#include "kernels/ops/movement.h"
#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

struct RelativeCase {
  int64_t rows, heads, queries, keys, features, values;
  int64_t groups = 0;  // of rows, each with distances of its own; 0: one, or as many as rows
};

// Each with distances of all rows or of each, with segments and without, and with a mask of all
// heads.
std::vector<Case> relative_cases(const std::vector<RelativeCase>& sizes, bool placed) {
  std::vector<Case> cases;
  for (const RelativeCase& s : sizes) {
    const Shape of_head{s.heads, s.features};
    const int64_t distances = std::max<int64_t>(0, (placed ? s.keys : s.queries) + s.keys - 1);
    const bool by_row = cases.size() % 2 == 1, segmented = cases.size() % 3 != 2;
    const int64_t groups = s.groups > 0 ? s.groups : by_row ? s.rows : 1;
    std::vector<Input> inputs{real({s.rows, s.heads, s.queries, s.features}),
                              real({s.rows, s.heads, s.keys, s.features}),
                              real({s.rows, s.heads, s.keys, s.values}),
                              real({groups, s.heads, distances, s.features}),
                              real(of_head),
                              real(of_head),
                              index({s.rows, 1, s.queries, s.keys}, 0, 3)};
    if (segmented) {
      inputs.push_back(real(of_head));
      inputs.push_back(real({2, s.heads, s.features}));
      inputs.push_back(index({s.rows, s.queries}, 0, 3));
      inputs.push_back(index({s.rows, s.keys}, 0, 3));
    }
    if (placed) inputs.push_back(index({s.rows, s.queries}, 0, std::max<int64_t>(1, s.keys)));
    cases.push_back({std::move(inputs), {{"scale", {0.3}}, {"placed", {placed ? 1.0 : 0.0}}}});
  }
  return cases;
}

// In a row, and anywhere: less than a tile of queries, and several; fewer keys and more.
std::vector<Case> all_relative_cases() {
  const std::vector<RelativeCase> in_a_row{
      {2, 3, 5, 5, 4, 3},   {1, 1, 1, 1, 1, 1},   {0, 2, 3, 3, 2, 2},   {2, 0, 3, 3, 2, 2},
      {2, 1, 4, 3, 0, 2},   {1, 2, 3, 0, 2, 1},   {3, 2, 7, 11, 5, 7},  {1, 3, 13, 2, 3, 1},
      {2, 1, 2, 17, 1, 5},  {1, 2, 37, 41, 7, 3}, {2, 2, 131, 5, 3, 2}, {3, 2, 61, 59, 2, 3},
      {6, 2, 5, 7, 3, 2, 3}};
  const std::vector<RelativeCase> anywhere{
      {2, 3, 5, 5, 4, 3}, {1, 1, 1, 1, 1, 1},  {0, 2, 3, 3, 2, 2},   {1, 2, 3, 0, 2, 1},
      {3, 2, 7, 4, 5, 7}, {2, 1, 0, 17, 1, 5}, {1, 2, 71, 151, 3, 2}};
  return all({relative_cases(in_a_row, false), relative_cases(anywhere, true)});
}

Tensor seen(Context& cx, const Tensor& numbers) {
  return ops::compare(cx, numbers, Tensor::zeros(cx.allocator, Shape{}, DType::kI64),
                      ops::Comparison::kNotEqual);
}

Outputs relative(Context& cx, Inputs x, const Attributes& a) {
  attention::RelativeTerms terms;
  terms.distances = x[3];
  terms.content = x[4];
  terms.position = x[5];
  if (a.flag("placed")) terms.places = x.back();
  if (x.size() > 8) {
    terms.segment = x[7];
    terms.segments = x[8];
    terms.query_segment = x[9];
    terms.key_segment = x[10];
  }
  attention::Parameters parameters;
  parameters.scale = a.real("scale");
  parameters.visibility.mask = seen(cx, x[6]);
  return {attention::relative_attention(cx, x[0], x[1], x[2], terms, parameters)};
}

// (q + b) k^T, b of each head.
Tensor moved_product(Context& cx, const Tensor& q, const Tensor& b, const Tensor& k) {
  const Tensor moved = ops::add(cx, q, ops::reshape(cx, b, {b.dim(0), 1, b.dim(1)}));
  return ops::matmul(cx, moved, ops::permute(cx, k, std::vector<int>{0, 1, 3, 2}));
}

// As Dai et al. shift: by reading a matrix of one more column in rows of one less.
Tensor shifted(Context& cx, const Tensor& x, int64_t keys) {
  const int64_t rows = x.dim(0), heads = x.dim(1), queries = x.dim(2), distances = x.dim(3);
  Tensor y = ops::pad(cx, x, 3, 1, 0);
  y = ops::reshape(cx, y, {rows, heads, distances + 1, queries});
  y = ops::slice(cx, y, 2, 1, distances);
  return ops::slice(cx, ops::reshape(cx, y, {rows, heads, queries, distances}), 3, 0, keys);
}

// Of each query, at its place, what it has of the distances of all keys.
Tensor picked(Context& cx, const Tensor& x, int64_t keys, const Tensor& places) {
  const std::vector<int64_t> stands = places.to_vector<int64_t>();
  const int64_t rows = x.dim(0), heads = x.dim(1), queries = x.dim(2);
  std::vector<int64_t> at;
  for (int64_t each = 0; each < rows * heads * queries; ++each) {
    const int64_t row = each / (heads * queries), query = each % queries;
    const int64_t first = keys - 1 - stands[static_cast<size_t>(row * queries + query)];
    for (int64_t key = 0; key < keys; ++key) at.push_back(first + key);
  }
  return ops::gather(cx, x, 3,
                     Tensor::from<int64_t>(cx.allocator, {rows, heads, queries, keys}, at));
}

// With all scores in memory.
Outputs relative_composed(Context& cx, Inputs x, const Attributes& a) {
  const Tensor &q = x[0], &k = x[1];
  Tensor scores = moved_product(cx, q, x[4], k);
  const bool grouped = x[3].dim(0) > 1 && x[3].dim(0) < q.dim(0);
  const Tensor by_distance = moved_product(
      cx, q, x[5], grouped ? ops::repeat_interleave(cx, x[3], 0, q.dim(0) / x[3].dim(0)) : x[3]);
  scores = ops::add(cx, scores,
                    a.flag("placed") ? picked(cx, by_distance, k.dim(2), x.back())
                                     : shifted(cx, by_distance, k.dim(2)));
  if (x.size() > 8) {
    const Tensor g = ops::reshape(cx, x[8], {1, 2, q.dim(1), q.dim(3)});
    const Tensor terms =
        moved_product(cx, q, x[7], ops::permute(cx, g, std::vector<int>{0, 2, 1, 3}));
    const Tensor own = ops::reshape(cx, x[9], {q.dim(0), 1, q.dim(2), 1});
    const Tensor others = ops::reshape(cx, x[10], {q.dim(0), 1, 1, k.dim(2)});
    const Tensor alike = ops::compare(cx, own, others, ops::Comparison::kEqual);
    scores = ops::add(
        cx, scores,
        ops::where(cx, alike, ops::slice(cx, terms, 3, 0, 1), ops::slice(cx, terms, 3, 1, 1)));
  }
  const Tensor weights =
      attention::weights_of(cx, ops::scale(cx, scores, a.real("scale")), seen(cx, x[6]));
  return {ops::matmul(cx, weights, x[2])};
}

}  // namespace

std::vector<Row> relative_rows() {
  return {{"relative_attention", relative, all_relative_cases(), relative_composed, 32}};
}

}  // namespace weft::op_table
