#include "worker/golden/comparer.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "worker/golden/wide_values.h"

namespace weft::golden {

double largest_of(const Expected& expected) {
  double largest = 0;
  for (float value : expected.values) largest = std::max(largest, std::abs(double{value}));
  return largest;
}

namespace {

// |a - b| but for what b is uncertain by; a NaN stays one.
double beyond(double a, double b, double uncertain) {
  const double off = std::abs(a - b);
  return off <= uncertain ? 0 : off - uncertain;
}

double half_place(float x) {
  const float size = std::abs(x);
  return (double{std::nextafter(size, INFINITY)} - double{size}) / 2;
}

// Of a number that is a float32 or has ten digits, as stored results have; else 0.
double rounding_of(double x) {
  if (x == double{static_cast<float>(x)}) return half_place(static_cast<float>(x));
  constexpr int kDigits = 10;
  if (std::stod(fmt::format("{:.{}g}", x, kDigits)) != x) return 0;
  return std::pow(10, std::floor(std::log10(std::abs(x))) - kDigits + 1) / 2;
}

}  // namespace

double Comparer::difference(double a, float b) const {
  return beyond(a, double{b}, precision_ == DType::kF64 ? half_place(b) : 0);
}

double Comparer::bar(const std::string& kind) const {
  if (precision_ == DType::kF64) return kDoubleBar;
  if (kind == "lr") return kRateBar;
  if (precision_ == DType::kBF16) {
    const auto found = golden_.bf16_errors.find(kind);
    if (found != golden_.bf16_errors.end()) return kBf16Share * found->second;
    throw StatusError(Status::invalid("bf16.json", "none of " + kind,
                                      "has to hold the errors of PyTorch, as "
                                      "tests/conformance/run.sh derive_bf16.py FOLDER writes it"));
  }
  if (kind.starts_with("merged.")) return kMergedBar;
  return kind == "norm after" ? kNormBar : kBar;
}

void Comparer::scalar(std::string what, const std::string& kind, double value, double expected) {
  const double uncertain = precision_ == DType::kF64 ? rounding_of(expected) : 0;
  add(std::move(what), bar(kind), beyond(value, expected, uncertain), std::abs(expected));
}

void Comparer::part(std::string what, double largest_difference, double scale) {
  const double most = bar(what);
  add(std::move(what), most, largest_difference, scale);
}

void Comparer::add(std::string what, double bar, double largest_difference, double scale) {
  const double error = scale > 0 ? largest_difference / scale : largest_difference;
  deviations_.push_back({std::move(what), error, bar});
}

void Comparer::gradient(const std::string& name, const Parameter& parameter,
                        const Expected& expected) {
  const std::vector<double> values = wide_gradient(parameter.value);
  double difference = 0, largest = 0;
  for_each_shard_run(parameter.info, [&](int64_t local, int64_t global, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const double value = values[static_cast<size_t>(local + i)];
      const double off = this->difference(value, expected.values[static_cast<size_t>(global + i)]);
      difference = std::isnan(off) ? off : std::max(difference, off);
      largest = std::max(largest, std::abs(value));
    }
  });
  const double scale = largest_of(expected);
  largest_gradient_ = std::max(largest_gradient_, scale);
  gradients_[name] = largest;
  if (scale > 0) part("grad." + name, difference, scale);
}

void Comparer::zero_gradients(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const auto found = gradients_.find(name);
    if (found != gradients_.end()) {
      // In bf16 what should vanish is rounding noise of the size of the gradients' own errors.
      const double most = precision_ == DType::kF32 ? kZeroBar : bar("grad." + name);
      add("zero grad." + name, most, found->second, largest_gradient_);
    }
  }
}

std::vector<Deviation> Comparer::finish() {
  std::vector<double> own;
  for (const Deviation& deviation : deviations_) {
    // A maximum over ranks would lose a NaN.
    own.push_back(std::isnan(deviation.error) ? 1e300 : deviation.error);
  }
  Tensor errors = Tensor::from<double>(*rank_.allocator, {std::ssize(own)}, own);
  rank_.mesh.axis(Axis::kWorld).all_reduce(errors, ReduceOp::kMax);
  const std::vector<double> all = errors.to_vector<double>();
  for (size_t i = 0; i < all.size(); ++i) deviations_[i].error = all[i];
  return std::move(deviations_);
}

}  // namespace weft::golden
