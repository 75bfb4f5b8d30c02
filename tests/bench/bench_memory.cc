// Ops whose time is that of moving their bytes, forward only, beside a plain copy.
#include <cmath>

#include "kernels/ops/elementwise.h"
#include "kernels/ops/norms.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/reductions.h"
#include "kernels/ops/rotary.h"
#include "kernels/tensor/strided.h"
#include "tests/bench/bench.h"

namespace weft::bench {
namespace {

using Step = std::function<Tensor(Context&, const Tensor& x, const Tensor& y)>;

// x and y are [rows, width]; y is positive.
Body body_of(const Options& options, const Step& step) {
  flush_denormals();
  auto m = std::make_shared<Machine>(options.integer("threads"));
  const Shape shape{options.integer("rows"), options.integer("width")};
  const Tensor x = m->random(shape, 1, false);
  const Tensor y = ops::square(m->plain, m->random(shape, 2, false));
  return [m, x, y, step] { step(m->plain, x, y); };
}

Body make_rotary(const Options& options) {
  flush_denormals();
  auto m = std::make_shared<Machine>(options.integer("threads"));
  const int64_t tokens = options.integer("rows"), width = options.integer("width");
  constexpr int64_t kFeatures = 64;
  const Tensor x = m->random({1, width / kFeatures, tokens, kFeatures}, 1, false);
  const Tensor positions = Tensor::empty(*m->allocator, {tokens}, DType::kI64);
  for (int64_t t = 0; t < tokens; ++t) positions.data<int64_t>()[t] = t;
  const Tensor frequencies = Tensor::empty(*m->allocator, {kFeatures / 2}, DType::kF64);
  for (int64_t i = 0; i < kFeatures / 2; ++i) {
    frequencies.data<double>()[i] =
        std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(kFeatures));
  }
  const ops::Angles angles = ops::rotary_angles(m->plain, positions, frequencies, DType::kF32);
  return [=] { ops::rotary(m->plain, x, angles.cos, angles.sin, ops::RotaryForm::kHalves); };
}

// A vector of what a norm has of a row.
Tensor row_of(Context& cx, const Tensor& y, int64_t row) {
  return ops::reshape(cx, ops::slice(cx, y, 0, row, 1), {y.dim(1)});
}

Maker maker(Step step) {
  return [step = std::move(step)](const Options& options) { return body_of(options, step); };
}

}  // namespace

const std::map<std::string, Maker>& memory_makers() {
  static const std::map<std::string, Maker> makers{
      {"copy",
       maker([](Context& cx, const Tensor& x, const Tensor&) { return clone(cx.pool, x); })},
      {"add",
       maker([](Context& cx, const Tensor& x, const Tensor& y) { return ops::add(cx, x, y); })},
      {"exp", maker([](Context& cx, const Tensor& x, const Tensor&) { return ops::exp(cx, x); })},
      {"log", maker([](Context& cx, const Tensor&, const Tensor& y) { return ops::log(cx, y); })},
      {"swiglu",
       maker([](Context& cx, const Tensor& x, const Tensor& y) { return ops::swiglu(cx, x, y); })},
      {"gelu_erf", maker([](Context& cx, const Tensor& x, const Tensor&) {
         return ops::activate(cx, x, ops::Activation::kGeluErf);
       })},
      {"gelu_tanh", maker([](Context& cx, const Tensor& x, const Tensor&) {
         return ops::activate(cx, x, ops::Activation::kGeluTanh);
       })},
      {"rms_norm", maker([](Context& cx, const Tensor& x, const Tensor& y) {
         return ops::rms_norm(cx, x, row_of(cx, y, 0), 1e-5);
       })},
      {"layer_norm_forward", maker([](Context& cx, const Tensor& x, const Tensor& y) {
         return ops::layer_norm(cx, x, row_of(cx, y, 0), row_of(cx, y, 1), 1e-5);
       })},
      {"log_softmax", maker([](Context& cx, const Tensor& x, const Tensor&) {
         return ops::log_softmax(cx, x, -1);
       })},
      {"sum_rows",
       maker([](Context& cx, const Tensor& x, const Tensor&) { return ops::sum(cx, x, 1); })},
      {"sum_columns",
       maker([](Context& cx, const Tensor& x, const Tensor&) { return ops::sum(cx, x, 0); })},
      {"argmax",
       maker([](Context& cx, const Tensor& x, const Tensor&) { return ops::argmax(cx, x, 1); })},
      {"rotary", make_rotary}};
  return makers;
}

}  // namespace weft::bench
