#include "worker/golden/comparer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/ops/ops.h"

namespace weft::golden {

double largest_of(const Expected& expected) {
  double largest = 0;
  for (float value : expected.values) largest = std::max(largest, std::abs(double{value}));
  return largest;
}

void Comparer::scalar(std::string what, double value, double expected, double bar) {
  part(std::move(what), std::abs(value - expected), std::abs(expected), bar);
}

void Comparer::part(std::string what, double largest_difference, double scale, double bar) {
  const double error = scale > 0 ? largest_difference / scale : largest_difference;
  deviations_.push_back({std::move(what), error, bar});
}

void Comparer::gradient(const std::string& name, const Parameter& parameter,
                        const Expected& expected) {
  Tensor gradient = parameter.value.grad();
  WEFT_CHECK(gradient && gradient.contiguous(), "gradient of {}", name);
  const float* values = gradient.data<float>();
  double difference = 0, largest = 0;
  for_each_shard_run(parameter.info, [&](int64_t local, int64_t global, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const double value = double{values[local + i]};
      const double off = std::abs(value - double{expected.values[static_cast<size_t>(global + i)]});
      difference = std::isnan(off) ? off : std::max(difference, off);
      largest = std::max(largest, std::abs(value));
    }
  });
  const double scale = largest_of(expected);
  largest_gradient_ = std::max(largest_gradient_, scale);
  gradients_[name] = largest;
  if (scale > 0) part("grad." + name, difference, scale, kBar);
}

void Comparer::zero_gradients(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const auto found = gradients_.find(name);
    if (found != gradients_.end()) {
      part("zero grad." + name, found->second, largest_gradient_, kZeroBar);
    }
  }
}

std::vector<Deviation> Comparer::finish() {
  Tensor errors =
      Tensor::zeros(*rank_.allocator, {static_cast<int64_t>(deviations_.size())}, DType::kF64);
  double* at = errors.data<double>();
  for (size_t i = 0; i < deviations_.size(); ++i) {
    // A maximum over ranks would lose a NaN.
    at[i] = std::isnan(deviations_[i].error) ? 1e300 : deviations_[i].error;
  }
  rank_.mesh.axis(Axis::kWorld).all_reduce(errors, ReduceOp::kMax);
  for (size_t i = 0; i < deviations_.size(); ++i) deviations_[i].error = at[i];
  return std::move(deviations_);
}

}  // namespace weft::golden
