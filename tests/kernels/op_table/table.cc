#include "tests/kernels/op_table/table.h"

#include <utility>

namespace weft::op_table {

double Attributes::real(const std::string& name) const {
  const auto found = values_.find(name);
  WEFT_CHECK(found != values_.end() && found->second.size() == 1, "attribute {}", name);
  return found->second[0];
}

int64_t Attributes::integer(const std::string& name) const {
  return static_cast<int64_t>(real(name));
}

std::vector<int64_t> Attributes::integers(const std::string& name) const {
  const auto found = values_.find(name);
  WEFT_CHECK(found != values_.end(), "attribute {}", name);
  return {found->second.begin(), found->second.end()};
}

std::string Case::to_string() const {
  std::string text;
  for (const Input& input : inputs) text += input.shape.to_string() + " ";
  for (const auto& [name, values] : attributes.values()) {
    text += name + "=";
    for (const double value : values) text += std::to_string(value) + ",";
    text += " ";
  }
  return text;
}

void PrintTo(const Row& row, std::ostream* out) { *out << row.op; }

Input real(Shape shape) { return {shape, Draw::kNormal, 0, 0, {}, true}; }
Input positive(Shape shape) { return {shape, Draw::kPositive, 0, 0, {}, true}; }
Input unit(Shape shape) { return {shape, Draw::kUnit, 0, 0, {}, true}; }
Input distinct(Shape shape) { return {shape, Draw::kDistinct, 0, 0, {}, true}; }
Input constant(Shape shape) { return {shape, Draw::kNormal, 0, 0, {}, false}; }
Input index(Shape shape, int64_t from, int64_t below) {
  return {shape, Draw::kIndex, from, below, {}, false};
}
Input given(Shape shape, std::vector<int64_t> values) {
  return {shape, Draw::kGiven, 0, 0, std::move(values), false};
}

std::vector<Case> each(const std::vector<Shape>& shapes, Attributes attributes, Draw draw) {
  std::vector<Case> cases;
  for (const Shape& shape : shapes) {
    cases.push_back({{{shape, draw, 0, 0, {}, true}}, attributes});
  }
  return cases;
}

std::vector<Case> all(std::initializer_list<std::vector<Case>> parts) {
  std::vector<Case> cases;
  for (const std::vector<Case>& part : parts) cases.insert(cases.end(), part.begin(), part.end());
  return cases;
}

std::vector<Case> pairs(Draw first, Draw second, const Attributes& attributes) {
  const std::vector<std::pair<Shape, Shape>> shapes{
      {{3, 5}, {3, 5}},       {{3, 5}, {5}},       {{3, 5}, {3, 1}}, {{7, 1}, {1, 3}},
      {{2, 3}, {}},           {{}, {2, 3}},        {{}, {}},         {{2, 3, 4}, {2, 1, 4}},
      {{2, 3, 4}, {1, 3, 1}}, {{0, 5}, {5}},       {{5, 0}, {1}},    {{1}, {1}},
      {{13}, {13}},           {{2, 1, 3}, {4, 1}}, {{5}, {3, 5}},    {{67, 251}, {251}},
      {{67, 251}, {67, 251}}, {{1, 1, 7}, {7}}};
  std::vector<Case> cases;
  for (const auto& [a, b] : shapes) {
    cases.push_back({{{a, first, 0, 0, {}, true}, {b, second, 0, 0, {}, true}}, attributes});
  }
  return cases;
}

const std::vector<Shape>& many_shapes() {
  static const std::vector<Shape> shapes{
      {},     {0},       {1},       {7},  {13},  {1, 1},          {3, 5},      {0, 5},
      {5, 0}, {2, 3, 4}, {7, 1, 3}, {37}, {131}, {2, 1, 3, 1, 2}, {1, 1, 257}, {67, 251}};
  return shapes;
}

namespace {

// Beside a composition, whose error counts twice, its last rounding; else what one or two roundings
// are, and more where an op passes rounded numbers from part to part or sums them.
double half_ulps_of(const Row& row) {
  static const std::map<std::string, double> kSeveralRoundings{
      {"multiply", 2.5},
      {"divide", 2.5},
      {"mean_dims", 1.5},
      {"batch_norm_evaluation", 1.5},
      {"bce_sum", 1.5},
      {"bce_weighted_sum", 1.5},
      {"kl_divergence_sum", 1.5},
      {"luong_dot", 2},
      {"luong_general", 6},
      {"luong_concat", 3},
      {"luong_location", 2},
      {"local_predictive", 2},
      {"window_attention", 2.5},
      {"block_attention", 2.5},
      {"structured_self_attention", 4},
      {"reinforce", 3},
      {"lstm_cell", 3},
      {"gru_cell", 5},
      {"linear_attention", 20},
      {"additive_attention_normalized", 20}};
  const auto several = kSeveralRoundings.find(row.op);
  if (several != kSeveralRoundings.end()) return several->second;
  return row.composition != nullptr ? 0.5 : 1;
}

}  // namespace

const std::vector<Row>& rows() {
  static const std::vector<Row> table = [] {
    std::vector<Row> whole;
    for (const auto& part :
         {arithmetic_rows, activation_rows,    reduction_rows, shape_rows,       product_rows,
          lookup_rows,     norm_rows,          loss_rows,      elementwise_rows, selection_rows,
          dims_rows,       movement_rows,      index_rows,     segment_rows,     channel_norm_rows,
          rotary_rows,     composed_loss_rows, attention_rows, convolution_rows, recurrent_rows,
          fused_rows,      relative_rows}) {
      for (Row& row : part()) {
        row.half_ulps = half_ulps_of(row);
        whole.push_back(std::move(row));
      }
    }
    return whole;
  }();
  return table;
}

}  // namespace weft::op_table
