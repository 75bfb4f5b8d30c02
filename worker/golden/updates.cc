#include "worker/golden/updates.h"

#include <cmath>

#include "worker/golden/wide_values.h"

namespace weft::golden {
namespace {

class ProductUpdates final : public Updates {
 public:
  ProductUpdates(Rank& rank, Replica& replica, const AdamWOptions& options, DType precision)
      : rank_(rank), optimizer_(rank, replica.handles(), options, precision) {}
  double gradient_norm() override { return global_gradient_norm(rank_, optimizer_.parameters()); }
  void step(double rate, double gradient_scale) override { optimizer_.step(rate, gradient_scale); }
  const std::vector<Parameter>& parameters() override { return optimizer_.parameters(); }
  std::vector<double> master(size_t parameter) override {
    const std::vector<float> numbers = optimizer_.states()[parameter].master.to_vector();
    return {numbers.begin(), numbers.end()};
  }

 private:
  Rank& rank_;
  AdamW optimizer_;
};

class DoubleUpdates final : public Updates {
 public:
  DoubleUpdates(Rank& rank, Replica& replica, const AdamWOptions& options)
      : options_(options), parameters_(replica.handles()) {
    round_parameters(rank, parameters_, DType::kF64);
    for (const Parameter& parameter : parameters_) {
      moments_.emplace_back(static_cast<size_t>(parameter.value.elements()));
    }
  }

  double gradient_norm() override {
    double squares = 0;
    for (const Parameter& parameter : parameters_) {
      for (const double g : wide_gradient(parameter.value)) squares += g * g;
    }
    return std::sqrt(squares);
  }

  void step(double rate, double gradient_scale) override {
    ++count_;
    const double bias1 = 1 - std::pow(options_.beta1, count_);
    const double bias2 = 1 - std::pow(options_.beta2, count_);
    for (size_t i = 0; i < parameters_.size(); ++i) {
      if (!parameters_[i].info.trained) continue;
      const std::vector<double> gradient = wide_gradient(parameters_[i].value);
      const double decay = parameters_[i].info.decay ? options_.weight_decay : 0;
      double* value = parameters_[i].value.data<double>();
      for (size_t e = 0; e < gradient.size(); ++e) {
        const double g = gradient[e] * gradient_scale;
        Moments& m = moments_[i][e];
        m.first = options_.beta1 * m.first + (1 - options_.beta1) * g;
        m.second = options_.beta2 * m.second + (1 - options_.beta2) * g * g;
        value[e] -= rate * decay * value[e];
        value[e] -= rate * (m.first / bias1) / (std::sqrt(m.second / bias2) + options_.epsilon);
      }
      parameters_[i].value.set_grad(Tensor());
    }
  }

  const std::vector<Parameter>& parameters() override { return parameters_; }
  std::vector<double> master(size_t parameter) override {
    return parameters_[parameter].value.to_vector<double>();
  }

 private:
  struct Moments {
    double first = 0, second = 0;
  };

  const AdamWOptions options_;
  std::vector<Parameter> parameters_;
  std::vector<std::vector<Moments>> moments_;
  int count_ = 0;
};

}  // namespace

std::unique_ptr<Updates> make_updates(Rank& rank, Replica& replica, const AdamWOptions& options,
                                      DType precision) {
  if (precision == DType::kF64) return std::make_unique<DoubleUpdates>(rank, replica, options);
  return std::make_unique<ProductUpdates>(rank, replica, options, precision);
}

}  // namespace weft::golden
