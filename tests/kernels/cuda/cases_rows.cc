// Kernels that work on rows, and sums, against the CPU ops in float64.
#include <limits>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/slices.cuh"
#include "tests/kernels/cuda/comparison.h"

namespace weft::cuda {
namespace {

constexpr float kEpsilon = 1e-5F;
constexpr double kClose = 4e-6;
constexpr int64_t kIgnored = -100;
const LossRules kRules{.ignore_index = kIgnored};

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

std::vector<double> widen_all(const std::vector<float>& values) {
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

template <typename T>
std::string check_sum_of(int64_t n, const TypedKernels<T>& kernels) {
  DeviceMemory memory;
  const std::vector<float> values = rounded<T>(random_values(n, 31, 2, 0.25));
  const T* x = memory.input(as<T>(values));
  double* partials = memory.output<double>(kPartials);
  double* totals = memory.output<double>(2);
  float* narrow = memory.output<float>(1);
  kernels.sum(x, n, partials, totals, nullptr);
  kernels.sum_of_squares(x, n, partials, totals + 1, nullptr);
  kernels.sum_to_float(x, n, partials, narrow, nullptr);
  double total = 0, squares = 0;
  for (const float value : values) {
    total += static_cast<double>(value);
    squares += static_cast<double>(value) * static_cast<double>(value);
  }
  return first_of({differs("sums of " + std::to_string(n), totals, {total, squares}, 1e-6),
                   differs("sum in float", narrow, {total}, 1e-6), memory.violation()});
}

// The middle of [outer, extent, inner], in blocks.
template <typename T>
std::string check_sum_middle(int64_t outer, int64_t extent, int64_t inner, int64_t blocks,
                             const TypedKernels<T>& kernels) {
  Bench bench(1);
  bench.context.block_count = static_cast<int>(blocks);
  DeviceMemory memory;
  const std::vector<float> values = rounded<T>(random_values(outer * extent * inner, 32, 1, 0.25));
  float* scratch = memory.output<float>(sum_middle_scratch(outer, extent, inner, blocks));
  T* out = memory.output<T>(outer * inner);
  kernels.sum_middle(memory.input(as<T>(values)), outer, extent, inner, 0.5, blocks, scratch, out,
                     nullptr);
  const Tensor x = in_double(bench, {outer, extent, inner}, values);
  const Tensor expected = ops::scale(bench.context, ops::sum(bench.context, x, 1), 0.5);
  return first_of({differs("sum of " + x.shape().to_string() + " in " + std::to_string(blocks), out,
                           expected.to_vector<double>(), near<T>(1e-5)),
                   memory.violation()});
}

std::string check_unknown_labels(const KernelSet& kernels) {
  DeviceMemory memory;
  const RowShape shape{3, 5};
  float *loss = memory.output<float>(3), *lse = memory.output<float>(3);
  const std::vector<int64_t> labels{int64_t{1} << 40, -1, -(int64_t{1} << 40)};
  kernels.typed<float>().cross_entropy(memory.input(random_values(15, 14)), memory.input(labels),
                                       kRules, shape.rows, shape.width, loss, lse, nullptr);
  for (int row = 0; row < 3; ++row) {
    if (!std::isnan(loss[row]) || std::isnan(lse[row])) return "a label outside has a loss";
  }
  return memory.violation();
}

// RMS norm and its gradients for the cotangent `slopes`, by their formulas in float64.
struct RmsNorm {
  std::vector<float> rstd;
  std::vector<double> y, dx, dgamma;
};
RmsNorm rms_of(const RowShape& shape, const std::vector<float>& x, const std::vector<float>& gamma,
               const std::vector<float>& slopes = {}) {
  RmsNorm rms;
  rms.dgamma.resize(static_cast<size_t>(shape.width));
  const auto in_row = [&](int64_t row, int64_t i) {
    return static_cast<size_t>(row * shape.width + i);
  };
  for (int64_t row = 0; row < shape.rows; ++row) {
    double squares = 0, along = 0;
    for (int64_t i = 0; i < shape.width; ++i) {
      squares += std::pow(static_cast<double>(x[in_row(row, i)]), 2);
    }
    const double n = static_cast<double>(shape.width);
    const double r = 1 / std::sqrt(squares / n + static_cast<double>(kEpsilon));
    rms.rstd.push_back(static_cast<float>(r));
    for (int64_t i = 0; i < shape.width; ++i) {
      const auto g = static_cast<double>(gamma[static_cast<size_t>(i)]);
      const double hat = static_cast<double>(x[in_row(row, i)]) * r;
      rms.y.push_back(hat * g);
      if (slopes.empty()) continue;
      const auto d = static_cast<double>(slopes[in_row(row, i)]);
      along += d * g * hat / n;
      rms.dgamma[static_cast<size_t>(i)] += d * hat;
    }
    for (int64_t i = 0; i < shape.width && !slopes.empty(); ++i) {
      const double g = static_cast<double>(slopes[in_row(row, i)]) *
                       static_cast<double>(gamma[static_cast<size_t>(i)]);
      rms.dx.push_back(r * (g - static_cast<double>(x[in_row(row, i)]) * r * along));
    }
  }
  return rms;
}

// x + residual as T, or x.
template <typename T>
std::vector<float> summed(std::vector<float> x, const std::vector<float>& residual) {
  for (size_t i = 0; i < residual.size(); ++i) x[i] = static_cast<float>(T(x[i] + residual[i]));
  return x;
}

template <typename T>
std::string check_norm_of(const RowShape& shape, bool with_residual,
                          const TypedKernels<T>& kernels) {
  Bench bench(1);
  DeviceMemory memory;
  const int64_t n = shape.rows * shape.width;
  const std::vector<float> x = rounded<T>(random_values(n, 1, 2, 0.5));
  const std::vector<float> residual = rounded<T>(random_values(with_residual ? n : 0, 2, 1));
  const std::vector<float> gammas = rounded<T>(random_values(shape.width, 2, 1, 1));
  const std::vector<float> betas = rounded<T>(random_values(shape.width, 3));
  const std::vector<float> values = summed<T>(x, residual);
  NormArguments<T> arguments{.x = memory.input(as<T>(x)),
                             .residual = with_residual ? memory.input(as<T>(residual)) : nullptr,
                             .gamma = memory.input(as<T>(gammas)),
                             .beta = memory.input(as<T>(betas)),
                             .epsilon = kEpsilon,
                             .rows = shape.rows,
                             .width = shape.width,
                             .sum = with_residual ? memory.output<T>(n) : nullptr,
                             .y = memory.output<T>(n),
                             .mean = memory.output<float>(shape.rows),
                             .rstd = memory.output<float>(shape.rows)};
  kernels.norm(arguments, nullptr);
  const Moments moments = moments_of(values, shape);
  const std::vector<Tensor> inputs{in_double(bench, {shape.rows, shape.width}, values),
                                   in_double(bench, {shape.width}, gammas),
                                   in_double(bench, {shape.width}, betas)};
  const double loose = shape.width == 2 ? 1e-3 : 2 * kClose;  // two close values: large rstd
  std::string finding =
      first_of({differs(at("y", shape), arguments.y,
                        norm(bench.context, inputs).to_vector<double>(), near<T>(loose)),
                differs(at("mean", shape), arguments.mean, widen_all(moments.mean), kClose),
                differs(at("rstd", shape), arguments.rstd, widen_all(moments.rstd), loose),
                with_residual ? differs(at("sum", shape), arguments.sum, widen_all(values), 0)
                              : std::string(),
                memory.violation()});
  if (!finding.empty()) return finding;

  arguments.mean = nullptr;
  arguments.beta = nullptr;
  arguments.y = memory.output<T>(n);
  kernels.norm(arguments, nullptr);
  return first_of(
      {differs(at("rms", shape), arguments.y, rms_of(shape, values, gammas).y, near<T>(loose)),
       memory.violation()});
}

template <typename T>
std::string check_norm_backward_of(const RowShape& shape, bool rms,
                                   const TypedKernels<T>& kernels) {
  Bench bench(1);
  DeviceMemory memory;
  const int64_t n = shape.rows * shape.width;
  const std::vector<float> values = rounded<T>(random_values(n, 4, 2, 0.5));
  const std::vector<float> slopes = rounded<T>(random_values(n, 5));
  const std::vector<float> past = rounded<T>(random_values(n, 15));
  const std::vector<float> gammas = rounded<T>(random_values(shape.width, 6, 1, 1));
  const Moments moments = moments_of(values, shape);
  const RmsNorm plain = rms_of(shape, values, gammas, slopes);
  const NormBackwardArguments<T> arguments{
      .x = memory.input(as<T>(values)),
      .dy = memory.input(as<T>(slopes)),
      .dsum = memory.input(as<T>(past)),
      .gamma = memory.input(as<T>(gammas)),
      .mean = rms ? nullptr : memory.input(moments.mean),
      .rstd = memory.input(rms ? plain.rstd : moments.rstd),
      .rows = shape.rows,
      .width = shape.width,
      .dx = memory.output<T>(n),
      .dgamma = memory.output<float>(shape.width),
      .dbeta = rms ? nullptr : memory.output<float>(shape.width)};
  float* scratch = memory.output<float>(norm_backward_scratch(shape.rows, shape.width));
  kernels.norm_backward(arguments, scratch, nullptr);
  auto gradients = gradients_of(
      bench, norm,
      {in_double(bench, {shape.rows, shape.width}, values), in_double(bench, {shape.width}, gammas),
       in_double(bench, {shape.width}, gammas)},
      in_double(bench, {shape.rows, shape.width}, slopes));
  std::vector<double> dx = rms ? plain.dx : gradients[0];
  for (size_t i = 0; i < dx.size(); ++i) dx[i] += static_cast<double>(past[i]);
  return first_of(
      {differs(at("dx", shape), arguments.dx, dx, near<T>(shape.width == 2 ? 1e-2 : 4 * kClose)),
       differs(at("dgamma", shape), arguments.dgamma, rms ? plain.dgamma : gradients[1], 4e-5),
       rms ? std::string() : differs(at("dbeta", shape), arguments.dbeta, gradients[2], 4e-5),
       memory.violation()});
}

template <typename T>
std::string softmax_of_type(const TypedKernels<T>& kernels) {
  for (const RowShape& shape : row_shapes()) {
    Bench bench(1);
    DeviceMemory memory;
    const int64_t n = shape.rows * shape.width;
    std::vector<float> values =
        rounded<T>(random_values(n, 7, 4, 300));  // no exponential of 300 is a float
    for (int64_t i = 0; i < std::min(n, 2 * shape.width); ++i) {
      if (i >= shape.width || i % 3 == 1) {  // a third of the first row, the whole second
        values[static_cast<size_t>(i)] = -std::numeric_limits<float>::infinity();
      }
    }
    T* y = memory.output<T>(n);
    kernels.softmax(memory.input(as<T>(values)), y, shape.rows, shape.width, nullptr);
    const Tensor expected =
        ops::softmax(bench.context, in_double(bench, {shape.rows, shape.width}, values), -1);
    const std::string finding =
        first_of({differs(at("y", shape), y, expected.to_vector<double>(), near<T>(1e-6)),
                  memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}

template <typename T>
std::string softmax_backward_of_type(const TypedKernels<T>& kernels) {
  for (const RowShape& shape : row_shapes()) {
    Bench bench(1);
    DeviceMemory memory;
    const int64_t n = shape.rows * shape.width;
    const std::vector<float> values = random_values(n, 8), slopes = rounded<T>(random_values(n, 9));
    const Tensor x = in_double(bench, {shape.rows, shape.width}, values);
    const std::vector<double> wide = ops::softmax(bench.context, x, -1).to_vector<double>();
    T* dx = memory.output<T>(n);
    kernels.softmax_backward(memory.input(as<T>(std::vector<float>(wide.begin(), wide.end()))),
                             memory.input(as<T>(slopes)), dx, shape.rows, shape.width, nullptr);
    const auto op = [](Context& cx, std::span<const Tensor> in) {
      return ops::softmax(cx, in[0], -1);
    };
    const auto gradients =
        gradients_of(bench, op, {x}, in_double(bench, {shape.rows, shape.width}, slopes));
    const std::string finding = first_of(
        {differs(at("dx", shape), dx, gradients[0], near<T>(near<T>(1e-6))), memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}

template <typename T>
std::string cross_entropy_of_type(const TypedKernels<T>& kernels) {
  for (const RowShape& shape : row_shapes()) {
    Bench bench(1);
    DeviceMemory memory;
    const int64_t n = shape.rows * shape.width;
    const std::vector<float> values = rounded<T>(random_values(n, 12, 4, -200));
    const std::vector<int64_t> labels = labels_of(shape);
    float *loss = memory.output<float>(shape.rows), *lse = memory.output<float>(shape.rows);
    kernels.cross_entropy(memory.input(as<T>(values)), memory.input(labels), kRules, shape.rows,
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
  return "";
}

template <typename T>
std::string cross_entropy_backward_of_type(const TypedKernels<T>& kernels) {
  for (const RowShape& shape : row_shapes()) {
    Bench bench(1);
    DeviceMemory memory;
    const int64_t n = shape.rows * shape.width;
    const std::vector<float> values = rounded<T>(random_values(n, 13, 2));
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
    T* dlogits = memory.output<T>(n);
    LossRules rules = kRules;
    rules.classes = shape.width;
    kernels.cross_entropy_backward(
        memory.input(as<T>(values)), memory.input(labels), memory.input(lse), rules,
        memory.input(std::vector<float>{0.75F}), shape.rows, shape.width, dlogits, nullptr);
    const auto op = [](Context& cx, std::span<const Tensor> in) {
      return ops::cross_entropy_sum(cx, in[0], in[1]);
    };
    const auto gradients = gradients_of(bench, op,
                                        {in_double(bench, {shape.rows, shape.width}, values),
                                         testing::ids(bench.context, {shape.rows}, labels)},
                                        Tensor::full(*bench.allocator, Shape{}, 0.75, DType::kF64));
    const std::string finding = first_of(
        {differs(at("dlogits", shape), dlogits, gradients[0], near<T>(2e-6)), memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}

// Smoothed losses and gradients of a row, by their formula in float64.
template <typename T>
std::string smoothing_of_type(const TypedKernels<T>& kernels) {
  const RowShape shape{3, 37};
  DeviceMemory memory;
  const std::vector<float> values = rounded<T>(random_values(shape.rows * shape.width, 33, 2));
  const std::vector<int64_t> labels{5, kIgnored, 36};
  const LossRules rules{.ignore_index = kIgnored, .smoothing = 0.25F, .classes = shape.width};
  float *loss = memory.output<float>(shape.rows), *lse = memory.output<float>(shape.rows);
  T* dlogits = memory.output<T>(shape.rows * shape.width);
  const T* logits = memory.input(as<T>(values));
  const int64_t* label = memory.input(labels);
  kernels.cross_entropy(logits, label, rules, shape.rows, shape.width, loss, lse, nullptr);
  kernels.cross_entropy_backward(logits, label, lse, rules, memory.input(std::vector<float>{2}),
                                 shape.rows, shape.width, dlogits, nullptr);
  std::vector<double> losses, slopes;
  for (int64_t row = 0; row < shape.rows; ++row) {
    double total = 0, expected = 0;
    const auto value = [&](int64_t i) {
      return static_cast<double>(values[static_cast<size_t>(row * shape.width + i)]);
    };
    for (int64_t i = 0; i < shape.width; ++i) total += std::exp(value(i));
    const bool ignored = labels[static_cast<size_t>(row)] == kIgnored;
    for (int64_t i = 0; i < shape.width; ++i) {
      const double even = 0.25 / static_cast<double>(shape.width);
      const double target = even + (i == labels[static_cast<size_t>(row)] ? 0.75 : 0);
      expected -= target * (value(i) - std::log(total));
      slopes.push_back(ignored ? 0 : 2 * (std::exp(value(i)) / total - target));
    }
    losses.push_back(ignored ? 0 : expected);
  }
  return first_of({differs("smoothed loss", loss, losses, 1e-5),
                   differs("its gradient", dlogits, slopes, near<T>(2e-6)), memory.violation()});
}

// Two shards of a vocabulary against the whole.
template <typename T>
std::string shards_of_type(const TypedKernels<T>& kernels, const KernelSet& set, float smoothing) {
  const int64_t rows = 4, width = 40, half = width / 2;
  DeviceMemory memory;
  const std::vector<float> values = rounded<T>(random_values(rows * width, 34, 3));
  const std::vector<int64_t> labels{7, 33, kIgnored, 20};
  std::vector<float> parts[2], highest;
  for (int64_t i = 0; i < rows * width; ++i) {
    parts[i % width / half].push_back(values[static_cast<size_t>(i)]);
  }
  const int64_t* label = memory.input(labels);
  float *loss = memory.output<float>(rows), *lse = memory.output<float>(rows);
  LossRules rules{.ignore_index = kIgnored, .smoothing = smoothing, .classes = width};
  kernels.cross_entropy(memory.input(as<T>(values)), label, rules, rows, width, loss, lse, nullptr);
  float* maxima[2] = {memory.output<float>(rows), memory.output<float>(rows)};
  const T* shards[2] = {memory.input(as<T>(parts[0])), memory.input(as<T>(parts[1]))};
  for (int i = 0; i < 2; ++i) kernels.row_maximum(shards[i], rows, half, maxima[i], nullptr);
  for (int64_t i = 0; i < rows; ++i) highest.push_back(std::max(maxima[0][i], maxima[1][i]));
  std::vector<float> terms(static_cast<size_t>(2 * rows));
  for (int64_t shard = 0; shard < 2; ++shard) {
    rules.first = shard * half;
    float* own = memory.output<float>(2 * rows);
    kernels.loss_terms(shards[shard], label, memory.input(highest), rules, rows, half, own,
                       nullptr);
    for (size_t i = 0; i < terms.size(); ++i) terms[i] += own[i];
  }
  float *to_lse = memory.in_out(highest), *total = memory.output<float>(rows);
  set.loss_total(label, memory.input(terms), rules, rows, to_lse, total, nullptr);
  return first_of({differs("sharded lse", to_lse, {lse, lse + rows}, 2e-6),
                   differs("sharded loss", total, {loss, loss + rows}, 1e-5), memory.violation()});
}

}  // namespace

std::string check_norm(const KernelSet& set) {
  return of_types([&]<typename T>() {
    for (const RowShape& shape : row_shapes()) {
      const std::string finding = first_of({check_norm_of(shape, false, set.typed<T>()),
                                            check_norm_of(shape, true, set.typed<T>())});
      if (!finding.empty()) return finding;
    }
    return std::string();
  });
}
std::string check_norm_backward(const KernelSet& set) {
  return of_types([&]<typename T>() {
    std::vector<RowShape> shapes = row_shapes();
    shapes.push_back({kSliceRows + 5, 35});
    for (const RowShape& shape : shapes) {
      const std::string finding = first_of({check_norm_backward_of(shape, false, set.typed<T>()),
                                            check_norm_backward_of(shape, true, set.typed<T>())});
      if (!finding.empty()) return finding;
    }
    return std::string();
  });
}
std::string check_softmax(const KernelSet& set) {
  return of_types([&]<typename T>() { return softmax_of_type(set.typed<T>()); });
}
std::string check_softmax_backward(const KernelSet& set) {
  return of_types([&]<typename T>() { return softmax_backward_of_type(set.typed<T>()); });
}
std::string check_cross_entropy(const KernelSet& set) {
  return first_of({of_types([&]<typename T>() {
                     return first_of({cross_entropy_of_type(set.typed<T>()),
                                      smoothing_of_type(set.typed<T>()),
                                      shards_of_type(set.typed<T>(), set, 0.0F),
                                      shards_of_type(set.typed<T>(), set, 0.25F)});
                   }),
                   check_unknown_labels(set)});
}
std::string check_cross_entropy_backward(const KernelSet& set) {
  return of_types([&]<typename T>() { return cross_entropy_backward_of_type(set.typed<T>()); });
}
std::string check_sums(const KernelSet& set) {
  return of_types([&]<typename T>() {
    for (const int64_t n :
         {int64_t{0}, int64_t{1}, int64_t{31}, int64_t{1000}, kBlocksMax * kThreads + 77}) {
      const std::string finding = check_sum_of(n, set.typed<T>());
      if (!finding.empty()) return finding;
    }
    return first_of({check_sum_middle(2, 5, 3, 1, set.typed<T>()),
                     check_sum_middle(1, 700, 33, 1, set.typed<T>()),
                     check_sum_middle(1, 700, 33, 5, set.typed<T>()),
                     check_sum_middle(2, 20000, 1, 3, set.typed<T>()),
                     check_sum_middle(3, 2, 40, 7, set.typed<T>()),
                     check_sum_middle(2, 0, 3, 2, set.typed<T>()),
                     check_sum_middle(0, 4, 3, 2, set.typed<T>())});
  });
}

}  // namespace weft::cuda
