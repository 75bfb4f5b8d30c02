#include "worker/optimizer/optimizer.h"

#include <cmath>
#include <utility>

#include "kernels/ops/ops.h"

namespace weft {

AdamW::AdamW(Rank& rank, std::vector<Parameter> parameters, AdamWOptions options)
    : rank_(rank), parameters_(std::move(parameters)), options_(options) {
  for (const Parameter& parameter : parameters_) {
    State state;
    state.first_moment = Tensor::zeros(*rank.allocator, parameter.value.shape());
    state.second_moment = Tensor::zeros(*rank.allocator, parameter.value.shape());
    states_.push_back(std::move(state));
  }
}

void AdamW::step(double learning_rate, double gradient_scale) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    Tensor gradient = parameters_[i].value.grad();
    if (!gradient) continue;
    if (!gradient.contiguous()) {
      Context cx = rank_.context();
      gradient = ops::contiguous(cx, gradient);
    }
    update(i, gradient, learning_rate, gradient_scale);
    parameters_[i].value.set_grad(Tensor());
  }
}

void AdamW::update(size_t index, const Tensor& gradient, double rate, double gradient_scale) {
  State& state = states_[index];
  const double count = static_cast<double>(++state.updates);
  const double decay = parameters_[index].info.decay ? options_.weight_decay : 0.0;
  const float keep = static_cast<float>(1.0 - rate * decay);
  const float beta1 = static_cast<float>(options_.beta1);
  const float beta2 = static_cast<float>(options_.beta2);
  const float rest1 = static_cast<float>(1.0 - options_.beta1);
  const float rest2 = static_cast<float>(1.0 - options_.beta2);
  const float step = static_cast<float>(rate / (1.0 - std::pow(options_.beta1, count)));
  const float root = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(options_.beta2, count)));
  const float epsilon = static_cast<float>(options_.epsilon);
  const float scale = static_cast<float>(gradient_scale);
  float* p = parameters_[index].value.data<float>();
  float* m = state.first_moment.data<float>();
  float* v = state.second_moment.data<float>();
  const float* g = gradient.data<float>();
  rank_.pool->parallel_for(gradient.elements(), 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float value = g[i] * scale;
      m[i] = beta1 * m[i] + rest1 * value;
      v[i] = beta2 * v[i] + rest2 * value * value;
      p[i] = keep * p[i] - step * m[i] / (std::sqrt(v[i]) * root + epsilon);
    }
  });
}

}  // namespace weft
