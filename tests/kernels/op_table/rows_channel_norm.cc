#include "kernels/ops/elementwise.h"
#include "kernels/ops/norms.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/reductions.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

const std::vector<Shape>& image_shapes() {
  static const std::vector<Shape> shapes{{2, 6, 5},       {3, 6},     {2, 6, 3, 5}, {5, 6, 1},
                                         {0, 6, 2},       {13, 6},    {2, 6, 1031}, {7, 6, 2},
                                         {4, 6, 2, 2, 2}, {3, 12, 7}, {2, 6, 37},   {5, 18, 4, 67}};
  return shapes;
}

std::vector<Case> images(const Attributes& attributes, bool one) {
  std::vector<Case> cases;
  for (const Shape& shape : image_shapes()) {
    cases.push_back({{real(shape), real({shape[1]}), real({shape[1]})}, attributes});
  }
  if (one) cases.push_back({{real({5, 1, 3}), real({1}), real({1})}, attributes});
  return cases;
}

// [C] beside [N, C, ...].
Tensor by_channel(Context& cx, const Tensor& values, const Tensor& x) {
  Shape shape{values.dim(0)};
  for (int dim = 2; dim < x.shape().dims(); ++dim) shape.push_back(1);
  return ops::reshape(cx, values, shape);
}

// (x - mean) / sqrt(variance + epsilon) over `dims`.
Tensor normalized(Context& cx, const Tensor& x, const std::vector<int>& dims, double epsilon) {
  const Tensor centered = ops::subtract(cx, x, ops::mean(cx, x, dims, true));
  const Tensor small = Tensor::full(cx.allocator, Shape{}, epsilon, x.dtype());
  const Tensor variance = ops::mean(cx, ops::square(cx, centered), dims, true);
  return ops::multiply(cx, centered, ops::rsqrt(cx, ops::add(cx, variance, small)));
}

Outputs group_normed(Context& cx, Inputs x, const Attributes& a) {
  const int64_t groups = x[0].dim(1) == 1 ? 1 : a.integer("groups");
  return {ops::group_norm(cx, x[0], x[1], x[2], groups, a.real("epsilon"))};
}

Outputs group_norm_composed(Context& cx, Inputs x, const Attributes& a) {
  const int64_t groups = x[0].dim(1) == 1 ? 1 : a.integer("groups");
  const int64_t rest = x[0].elements() == 0 ? 1 : x[0].elements() / (x[0].dim(0) * groups);
  const Tensor grouped = ops::reshape(cx, x[0], Shape{x[0].dim(0), groups, rest});
  const Tensor hat =
      ops::reshape(cx, normalized(cx, grouped, {2}, a.real("epsilon")), x[0].shape());
  return {
      ops::add(cx, ops::multiply(cx, hat, by_channel(cx, x[1], x[0])), by_channel(cx, x[2], x[0]))};
}

// The output, or the running statistics after it.
template <bool kStatistics>
Outputs batch_normed(Context& cx, Inputs x, const Attributes& a) {
  const int64_t channels = x[0].dim(1);
  const DType dtype = x[0].dtype();
  ops::RunningStatistics running{Tensor::full(cx.allocator, Shape{channels}, 0.5, dtype),
                                 Tensor::full(cx.allocator, Shape{channels}, 2, dtype)};
  const Tensor y = ops::batch_norm_training(cx, x[0], x[1], x[2], a.real("epsilon"), &running,
                                            a.real("momentum"));
  if (kStatistics) return {running.mean, running.variance};
  return {y};
}

template <bool kStatistics>
Outputs batch_norm_composed(Context& cx, Inputs x, const Attributes& a) {
  std::vector<int> dims{0};
  for (int dim = 2; dim < x[0].shape().dims(); ++dim) dims.push_back(dim);
  const Tensor hat = normalized(cx, x[0], dims, a.real("epsilon"));
  const Tensor y =
      ops::add(cx, ops::multiply(cx, hat, by_channel(cx, x[1], x[0])), by_channel(cx, x[2], x[0]));
  const double momentum = a.real("momentum"), kept = 1 - momentum;
  const Tensor batch = x[0].detach();
  const bool none = batch.elements() == 0;
  const auto blend = [&](double before, const Tensor& now) {
    const Tensor old =
        Tensor::full(cx.allocator, now.shape(), before * (none ? 1 : kept), now.dtype());
    return none ? old : ops::add(cx, old, ops::scale(cx, now, momentum));
  };
  if (kStatistics)
    return {blend(0.5, ops::mean(cx, batch, dims)), blend(2, ops::variance(cx, batch, dims))};
  return {y};
}

// x is normalized by statistics that were learned before: inputs 3 and 4.
Outputs batch_norm_evaluated(Context& cx, Inputs x, const Attributes& a) {
  return {ops::batch_norm_evaluation(cx, x[0], x[1], x[2], a.real("epsilon"), {x[3], x[4]})};
}

std::vector<Case> evaluations() {
  std::vector<Case> cases = images({{"epsilon", {1e-2}}}, true);
  for (Case& item : cases) {
    const Shape channels{item.inputs[0].shape[1]};
    Input variance = positive(channels);
    variance.gradient = false;
    item.inputs.push_back(constant(channels));
    item.inputs.push_back(variance);
  }
  return cases;
}

}  // namespace

std::vector<Row> channel_norm_rows() {
  const Attributes training{{"epsilon", {1e-2}}, {"momentum", {0.1}}};
  Attributes in_blocks = training;
  in_blocks.set("block_count", {2});
  return {
      {"group_norm", group_normed, images({{"groups", {3}}, {"epsilon", {1e-2}}}, true),
       group_norm_composed},
      {"batch_norm", batch_normed<false>, images(training, true), batch_norm_composed<false>},
      {"batch_norm_in_blocks", batch_normed<false>, images(in_blocks, true),
       batch_norm_composed<false>},
      {"batch_norm_running", batch_normed<true>, images(training, true), batch_norm_composed<true>,
       4, false},
      {"batch_norm_evaluation", batch_norm_evaluated, evaluations(), nullptr, 8},
  };
}

}  // namespace weft::op_table
