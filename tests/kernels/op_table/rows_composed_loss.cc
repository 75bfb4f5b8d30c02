// The losses that are composed of other ops, and connectionist temporal classification.
#include "kernels/ops/losses.h"
#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

// Two tensors of one shape.
std::vector<Case> against(Draw second, const Attributes& attributes = {}) {
  std::vector<Case> cases;
  for (Shape shape : many_shapes()) {
    if (shape.elements() > 10000) shape = {3, 257};  // a kink lies near some of many
    cases.push_back({{real(shape), {shape, second, 0, 0, {}, true}}, attributes});
  }
  return cases;
}

Outputs bce(Context& cx, Inputs x, const Attributes&) {
  return {ops::binary_cross_entropy_sum(cx, x[0], x[1], x.size() > 2 ? x[2] : Tensor())};
}

std::vector<Case> weighted_bce() {
  std::vector<Case> cases = against(Draw::kUnit);
  for (Case& item : cases) {
    const Shape& shape = item.inputs[0].shape;
    Input weight = positive(shape.dims() == 0 ? Shape{} : Shape{shape[-1]});
    weight.gradient = false;
    item.inputs.push_back(weight);
  }
  return cases;
}

std::vector<Case> transcriptions() {
  struct Batch {
    int64_t times, batch, classes, labels;
    std::vector<int64_t> input_lengths, target_lengths;
  };
  std::vector<Case> cases;
  for (const Batch& b : std::vector<Batch>{{5, 2, 4, 2, {5, 4}, {2, 1}},
                                           {7, 3, 3, 3, {7, 6, 7}, {3, 0, 2}},
                                           {1, 1, 2, 1, {1}, {1}},
                                           {1, 1, 2, 1, {1}, {0}},
                                           {4, 1, 5, 4, {4}, {4}},
                                           {3, 0, 4, 2, {}, {}},
                                           {9, 2, 3, 4, {9, 9}, {4, 4}},  // repeated labels
                                           {13, 1, 7, 5, {13}, {5}},
                                           {11, 5, 4, 3, {11, 10, 9, 8, 7}, {3, 3, 2, 1, 0}},
                                           {37, 2, 11, 13, {37, 31}, {13, 11}},
                                           {2, 2, 5, 0, {2, 1}, {0, 0}},
                                           {67, 3, 31, 17, {67, 60, 50}, {17, 16, 3}},
                                           {1, 3, 1, 0, {1, 1, 0}, {0, 0, 0}}}) {
    cases.push_back({{real({b.times, b.batch, b.classes}), index({b.batch, b.labels}, 1, b.classes),
                      given({b.batch}, b.input_lengths), given({b.batch}, b.target_lengths)},
                     {{"blank", {0}}}});
  }
  return cases;
}

}  // namespace

std::vector<Row> composed_loss_rows() {
  using enum Draw;
  return {
      {"squared_error_sum", binary<ops::squared_error_sum>, against(kNormal), nullptr, 16},
      {"absolute_error_sum", binary<ops::absolute_error_sum>, against(kDistinct), nullptr, 16},
      {"huber_sum",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::huber_sum(cx, x[0], x[1], a.real("delta"))};
       },
       against(kNormal, {{"delta", {0.8}}}), nullptr, 16},
      {"bce_sum", bce, against(kUnit), nullptr, 16},
      {"bce_weighted_sum", bce, weighted_bce(), nullptr, 16},
      {"kl_divergence_sum", binary<ops::kl_divergence_sum>, against(kUnit), nullptr, 16},
      {"smoothed_cross_entropy_sum",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::cross_entropy_sum(
             cx, x[0], x[1],
             {.ignore_index = a.integer("ignore_index"), .smoothing = a.real("smoothing")})};
       },
       classifications({{"ignore_index", {-1}}, {"smoothing", {0.1}}}), nullptr, 16},
      {"ctc_loss",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{ops::ctc_loss(cx, x[0], x[1], x[2], x[3], a.integer("blank"))};
       },
       transcriptions()},
  };
}

}  // namespace weft::op_table
