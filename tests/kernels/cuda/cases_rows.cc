// Kernels that work on rows, and sums, against the CPU ops in float64.
#include <limits>

#include "kernels/cuda/launch.h"
#include "tests/kernels/cuda/comparison.h"

namespace weft::cuda {
namespace {

constexpr float kEpsilon = 1e-5F;
constexpr double kClose = 4e-6;
constexpr int64_t kIgnored = -100;

std::string at(const char* what, const RowShape& shape) {
  return std::string(what) + " [" + std::to_string(shape.rows) + ", " +
         std::to_string(shape.width) + "]";
}

struct Moments {
  std::vector<float> mean, rstd;
};
Moments moments_of(const std::vector<float>& x, const RowShape& shape) {
  Moments moments;
  const double n = static_cast<double>(shape.width);
  for (int64_t row = 0; row < shape.rows; ++row) {
    const float* from = x.data() + row * shape.width;
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < shape.width; ++i) mean += static_cast<double>(from[i]) / n;
    for (int64_t i = 0; i < shape.width; ++i) {
      squares += std::pow(static_cast<double>(from[i]) - mean, 2);
    }
    moments.mean.push_back(static_cast<float>(mean));
    moments.rstd.push_back(
        static_cast<float>(1 / std::sqrt(squares / n + static_cast<double>(kEpsilon))));
  }
  return moments;
}

std::vector<double> widen(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

Tensor norm(Context& cx, std::span<const Tensor> in) {
  return ops::layer_norm(cx, in[0], in[1], in[2], static_cast<double>(kEpsilon));
}

std::vector<int64_t> labels_of(const RowShape& shape) {
  std::vector<int64_t> labels;
  for (int64_t row = 0; row < shape.rows; ++row) {
    labels.push_back(row % 3 == 2 ? kIgnored : (row * 7 + shape.width - 1) % shape.width);
  }
  return labels;
}

std::string check_sum_of(int64_t n, const KernelSet& kernels) {
  DeviceMemory memory;
  const std::vector<float> values = random_values(n, 31, 2, 0.25);
  const float* x = memory.input(values);
  double* partials = memory.output<double>(kPartials);
  double* totals = memory.output<double>(2);
  kernels.sum(x, n, partials, totals, nullptr);
  kernels.sum_of_squares(x, n, partials, totals + 1, nullptr);
  double total = 0, squares = 0;
  for (const float value : values) {
    total += static_cast<double>(value);
    squares += static_cast<double>(value) * static_cast<double>(value);
  }
  return first_of({differs("sums of " + std::to_string(n), totals, {total, squares}, 1e-6),
                   memory.violation()});
}

std::string check_unknown_labels(const KernelSet& kernels) {
  DeviceMemory memory;
  const RowShape shape{3, 5};
  float *loss = memory.output<float>(3), *lse = memory.output<float>(3);
  const std::vector<int64_t> labels{int64_t{1} << 40, -1, -(int64_t{1} << 40)};
  kernels.cross_entropy(memory.input(random_values(15, 14)), memory.input(labels), kIgnored,
                        shape.rows, shape.width, loss, lse, nullptr);
  for (int row = 0; row < 3; ++row) {
    if (!std::isnan(loss[row]) || std::isnan(lse[row])) return "a label outside has a loss";
  }
  return memory.violation();
}

}  // namespace

std::string check_layer_norm(const KernelSet& kernels) {
  for (const RowShape& shape : row_shapes()) {
    Bench bench(1);
    DeviceMemory memory;
    const int64_t n = shape.rows * shape.width;
    const std::vector<float> values = random_values(n, 1, 2, 0.5);
    const std::vector<float> gammas = random_values(shape.width, 2, 1, 1);
    const std::vector<float> betas = random_values(shape.width, 3);
    float *y = memory.output<float>(n), *mean = memory.output<float>(shape.rows),
          *rstd = memory.output<float>(shape.rows);
    kernels.layer_norm(memory.input(values), memory.input(gammas), memory.input(betas), kEpsilon,
                       shape.rows, shape.width, y, mean, rstd, nullptr);
    const Moments moments = moments_of(values, shape);
    const std::vector<Tensor> inputs{in_double(bench, {shape.rows, shape.width}, values),
                                     in_double(bench, {shape.width}, gammas),
                                     in_double(bench, {shape.width}, betas)};
    const std::string finding = first_of(
        {differs(at("y", shape), y, norm(bench.context, inputs).to_vector<double>(),
                 shape.width == 2 ? 1e-3 : 2 * kClose),  // two close values: large rstd
         differs(at("mean", shape), mean, widen(moments.mean), kClose),
         differs(at("rstd", shape), rstd, widen(moments.rstd), shape.width == 2 ? 1e-3 : kClose),
         memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_layer_norm_backward(const KernelSet& kernels) {
  for (const RowShape& shape : row_shapes()) {
    Bench bench(1);
    DeviceMemory memory;
    const int64_t n = shape.rows * shape.width;
    const std::vector<float> values = random_values(n, 4, 2, 0.5);
    const std::vector<float> slopes = random_values(n, 5);
    const std::vector<float> gammas = random_values(shape.width, 6, 1, 1);
    const Moments moments = moments_of(values, shape);
    float *dx = memory.output<float>(n), *dgamma = memory.output<float>(shape.width),
          *dbeta = memory.output<float>(shape.width);
    kernels.layer_norm_backward(memory.input(values), memory.input(slopes), memory.input(gammas),
                                memory.input(moments.mean), memory.input(moments.rstd), shape.rows,
                                shape.width, dx, dgamma, dbeta, nullptr);
    const auto gradients = gradients_of(
        bench, norm,
        {in_double(bench, {shape.rows, shape.width}, values),
         in_double(bench, {shape.width}, gammas), in_double(bench, {shape.width}, gammas)},
        in_double(bench, {shape.rows, shape.width}, slopes));
    const std::string finding =
        first_of({differs(at("dx", shape), dx, gradients[0], shape.width == 2 ? 1e-2 : 2 * kClose),
                  differs(at("dgamma", shape), dgamma, gradients[1], 2e-5),
                  differs(at("dbeta", shape), dbeta, gradients[2], 2e-5), memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_softmax(const KernelSet& kernels) {
  for (const RowShape& shape : row_shapes()) {
    Bench bench(1);
    DeviceMemory memory;
    const int64_t n = shape.rows * shape.width;
    std::vector<float> values = random_values(n, 7, 4, 300);  // no exponential of 300 is a float
    for (int64_t i = 0; i < std::min(n, 2 * shape.width); ++i) {
      if (i >= shape.width || i % 3 == 1) {  // a third of the first row, the whole second
        values[static_cast<size_t>(i)] = -std::numeric_limits<float>::infinity();
      }
    }
    float* y = memory.output<float>(n);
    kernels.softmax(memory.input(values), y, shape.rows, shape.width, nullptr);
    const Tensor expected =
        ops::softmax(bench.context, in_double(bench, {shape.rows, shape.width}, values), -1);
    const std::string finding = first_of(
        {differs(at("y", shape), y, expected.to_vector<double>(), 1e-6), memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_softmax_backward(const KernelSet& kernels) {
  for (const RowShape& shape : row_shapes()) {
    Bench bench(1);
    DeviceMemory memory;
    const int64_t n = shape.rows * shape.width;
    const std::vector<float> values = random_values(n, 8), slopes = random_values(n, 9);
    const Tensor x = in_double(bench, {shape.rows, shape.width}, values);
    const std::vector<double> wide = ops::softmax(bench.context, x, -1).to_vector<double>();
    float* dx = memory.output<float>(n);
    kernels.softmax_backward(memory.input(std::vector<float>(wide.begin(), wide.end())),
                             memory.input(slopes), dx, shape.rows, shape.width, nullptr);
    const auto op = [](Context& cx, std::span<const Tensor> in) {
      return ops::softmax(cx, in[0], -1);
    };
    const auto gradients =
        gradients_of(bench, op, {x}, in_double(bench, {shape.rows, shape.width}, slopes));
    const std::string finding =
        first_of({differs(at("dx", shape), dx, gradients[0], 1e-6), memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_cross_entropy(const KernelSet& kernels) {
  for (const RowShape& shape : row_shapes()) {
    Bench bench(1);
    DeviceMemory memory;
    const int64_t n = shape.rows * shape.width;
    const std::vector<float> values = random_values(n, 12, 4, -200);
    const std::vector<int64_t> labels = labels_of(shape);
    float *loss = memory.output<float>(shape.rows), *lse = memory.output<float>(shape.rows);
    kernels.cross_entropy(memory.input(values), memory.input(labels), kIgnored, shape.rows,
                          shape.width, loss, lse, nullptr);
    for (int64_t row = 0; row < shape.rows; ++row) {
      const size_t i = static_cast<size_t>(row);
      const std::vector<float> one(values.begin() + row * shape.width,
                                   values.begin() + (row + 1) * shape.width);
      const Tensor label = testing::ids(bench.context, {1}, {labels[i]});
      const double expected =
          ops::cross_entropy_sum(bench.context, in_double(bench, {1, shape.width}, one), label)
              .to_vector<double>()[0];
      const double picked =
          labels[i] == kIgnored ? 0 : static_cast<double>(one[static_cast<size_t>(labels[i])]);
      // The loss is a difference of two numbers near 200, each rounded.
      const std::string finding =
          first_of({differs(at("loss", shape), loss + i, {expected}, 3e-5),
                    differs(at("lse", shape), lse + i, {expected + picked}, 1e-6)});
      if (!finding.empty()) return finding;
    }
    if (!memory.violation().empty()) return memory.violation();
  }
  return check_unknown_labels(kernels);
}

std::string check_cross_entropy_backward(const KernelSet& kernels) {
  for (const RowShape& shape : row_shapes()) {
    Bench bench(1);
    DeviceMemory memory;
    const int64_t n = shape.rows * shape.width;
    const std::vector<float> values = random_values(n, 13, 2);
    const std::vector<int64_t> labels = labels_of(shape);
    std::vector<float> lse;
    for (int64_t row = 0; row < shape.rows; ++row) {
      double total = 0;
      for (int64_t i = 0; i < shape.width; ++i) {
        total += std::exp(static_cast<double>(values[static_cast<size_t>(row * shape.width + i)]));
      }
      const bool ignored = labels[static_cast<size_t>(row)] == kIgnored;
      lse.push_back(ignored ? 0.0F : static_cast<float>(std::log(total)));
    }
    float* dlogits = memory.output<float>(n);
    kernels.cross_entropy_backward(memory.input(values), memory.input(labels), memory.input(lse),
                                   kIgnored, 0.75F, shape.rows, shape.width, dlogits, nullptr);
    const auto op = [](Context& cx, std::span<const Tensor> in) {
      return ops::cross_entropy_sum(cx, in[0], in[1]);
    };
    const auto gradients = gradients_of(bench, op,
                                        {in_double(bench, {shape.rows, shape.width}, values),
                                         testing::ids(bench.context, {shape.rows}, labels)},
                                        Tensor::full(*bench.allocator, Shape{}, 0.75, DType::kF64));
    const std::string finding =
        first_of({differs(at("dlogits", shape), dlogits, gradients[0], 2e-6), memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_sums(const KernelSet& kernels) {
  for (const int64_t n :
       {int64_t{1}, int64_t{31}, int64_t{257}, int64_t{1000}, kBlocksMax * kThreads + 77}) {
    const std::string finding = check_sum_of(n, kernels);
    if (!finding.empty()) return finding;
  }
  return check_sum_of(0, kernels);
}

}  // namespace weft::cuda
