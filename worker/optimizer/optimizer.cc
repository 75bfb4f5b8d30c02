#include "worker/optimizer/optimizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/update.h"
#include "kernels/tensor/strided.h"

namespace weft {
namespace {

constexpr int64_t kAlignment = 32;     // elements: whole cache lines of half types too
constexpr int64_t kSegment = 1 << 15;  // elements of one piece of work
constexpr int64_t kBlock = 1 << 11;    // elements updated, then rounded, while they are in cache

int64_t aligned(int64_t elements) { return (elements + kAlignment - 1) / kAlignment * kAlignment; }

// Views of one buffer, one a parameter.
std::vector<Tensor> flat(Allocator& allocator, std::span<const Parameter> parameters, DType dtype) {
  int64_t total = 0;
  for (const Parameter& parameter : parameters) total += aligned(parameter.value.elements());
  const Tensor buffer = Tensor::zeros(allocator, {total}, dtype);
  std::vector<Tensor> views;
  int64_t at = 0;
  for (const Parameter& parameter : parameters) {
    const Shape& shape = parameter.value.shape();
    const Strides strides = row_major_strides(shape);
    views.push_back(
        buffer.view(shape, std::span(strides).first(static_cast<size_t>(shape.dims())), at));
    at += aligned(shape.elements());
  }
  return views;
}

void round_into(ThreadPool& pool, const Tensor& master, const Tensor& value) {
  if (value.raw() == master.raw()) return;
  copy_into(pool, cpu::converted(pool, master, value.dtype()), value);
}

}  // namespace

struct AdamW::Update {
  cpu::AdamWFactors factors;
  const State* state;
  Tensor gradient, value;
};

AdamW::AdamW(Rank& rank, std::vector<Parameter> parameters, AdamWOptions options, DType values)
    : rank_(rank), parameters_(std::move(parameters)), options_(options) {
  states_.resize(parameters_.size());
  const std::vector<Tensor> masters = flat(*rank.allocator, parameters_, DType::kF32);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    states_[i].master = masters[i];
    copy_into(*rank.pool, parameters_[i].value, masters[i]);
    parameters_[i].value.rebind(masters[i]);
  }
  const std::vector<Tensor> first = flat(*rank.allocator, parameters_, DType::kF32);
  const std::vector<Tensor> second = flat(*rank.allocator, parameters_, DType::kF32);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    states_[i].first_moment = first[i];
    states_[i].second_moment = second[i];
  }
  if (!is_half(values)) return;
  const std::vector<Tensor> rounded = flat(*rank.allocator, parameters_, values);
  for (size_t i = 0; i < parameters_.size(); ++i) parameters_[i].value.rebind(rounded[i]);
  round_values();
}

void AdamW::round_values() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    round_into(*rank_.pool, states_[i].master, parameters_[i].value);
  }
}

AdamW::Update AdamW::update_of(size_t index, double rate, double gradient_scale) {
  State& state = states_[index];
  const double count = static_cast<double>(++state.updates);
  const double decay = parameters_[index].info.decay ? options_.weight_decay : 0.0;
  const cpu::AdamWFactors factors{
      .scale = static_cast<float>(gradient_scale),
      .beta1 = static_cast<float>(options_.beta1),
      .beta2 = static_cast<float>(options_.beta2),
      .rest1 = static_cast<float>(1.0 - options_.beta1),
      .rest2 = static_cast<float>(1.0 - options_.beta2),
      .keep = static_cast<float>(1.0 - rate * decay),
      .step = static_cast<float>(rate / (1.0 - std::pow(options_.beta1, count))),
      .root = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(options_.beta2, count))),
      .epsilon = static_cast<float>(options_.epsilon)};
  return {factors, &state, as_contiguous(*rank_.pool, parameters_[index].value.grad()),
          parameters_[index].value};
}

void AdamW::apply(const Update& update, int64_t begin, int64_t end) const {
  const float* g = update.gradient.data<float>();
  float *p = update.state->master.data<float>(), *m = update.state->first_moment.data<float>();
  float* v = update.state->second_moment.data<float>();
  for (int64_t at = begin; at < end; at += kBlock) {
    const int64_t n = std::min(kBlock, end - at);
    cpu::update().adamw(update.factors, g + at, m + at, v + at, p + at, n);
    if (update.value.dtype() == DType::kBF16) {
      cpu::round(p + at, update.value.data<bfloat16>() + at, n);
    } else if (update.value.dtype() == DType::kF16) {
      cpu::round(p + at, update.value.data<float16>() + at, n);
    }
  }
}

void AdamW::step(double learning_rate, double gradient_scale) {
  struct Segment {
    size_t update;
    int64_t begin;
  };
  std::vector<Update> updates;
  std::vector<Segment> segments;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!parameters_[i].value.grad()) continue;
    updates.push_back(update_of(i, learning_rate, gradient_scale));
    const int64_t elements = parameters_[i].value.elements();
    for (int64_t at = 0; at < elements; at += kSegment) {
      segments.push_back({updates.size() - 1, at});
    }
    parameters_[i].value.set_grad(Tensor());
  }
  rank_.pool->parallel_for(std::ssize(segments), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Segment& segment = segments[static_cast<size_t>(i)];
      const Update& update = updates[segment.update];
      apply(update, segment.begin, std::min(segment.begin + kSegment, update.gradient.elements()));
    }
  });
}

void round_parameters(Rank& rank, std::span<Parameter> parameters, DType dtype) {
  for (Parameter& parameter : parameters) {
    parameter.value.rebind(cpu::converted(*rank.pool, parameter.value, dtype));
  }
}

}  // namespace weft
