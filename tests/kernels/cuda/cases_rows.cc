// Kernels that work on rows, and sums, against the CPU ops in float64.
#include <cmath>
#include <limits>

#include "kernels/cpu/update.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/slices.cuh"
#include "tests/kernels/cuda/comparison.h"

namespace weft::cuda {
namespace {

constexpr float kEpsilon = 1e-5F;
constexpr double kClose = 4e-6;

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

template <typename T>
std::string check_sum_of(int64_t n, const TypedKernels<T>& kernels) {
  DeviceMemory memory;
  const std::vector<float> values = rounded<T>(random_values(n, 31, 2, 0.25));
  const T* x = memory.input(as<T>(values));
  double* partials = memory.output<double>(kPartials);
  double* total_there = memory.output<double>(1);
  float* narrow = memory.output<float>(1);
  kernels.sum(x, n, partials, total_there, nullptr);
  kernels.sum_to_float(x, n, partials, narrow, nullptr);
  double total = 0;
  for (const float value : values) total += static_cast<double>(value);
  return first_of({differs("sum of " + std::to_string(n), total_there, {total}, 1e-6),
                   differs("sum in float", narrow, {total}, 1e-6), memory.violation()});
}

// The CPU's bits, of two arrays one after the other.
std::string check_exact_squares_of(int64_t n, const KernelSet& set) {
  DeviceMemory memory;
  std::vector<float> values = random_values(n, 33, 2, 0.25);
  values[static_cast<size_t>(n - 1)] = -25.0F;  // the largest
  const std::vector<float> more = random_values(100, 34, 1e-3, 0);
  const float* x[] = {memory.input(values), memory.input(more)};
  const int64_t sizes[] = {n, std::ssize(more)};
  float* partials = memory.output<float>(kPartials);
  double* partial_sums = memory.output<double>(2 * kPartials);
  float* largest = memory.in_out(std::vector<float>{0.0F});
  double* sums = memory.in_out(std::vector<double>{0.0, 0.0});
  const double first = std::ldexp(1.5, 24), second = std::ldexp(first, -30);
  double upper = 0, lower = 0;
  for (int i = 0; i < 2; ++i) {
    set.largest_size(x[i], sizes[i], partials, largest, nullptr);
    set.cut_squares(x[i], sizes[i], first, second, partial_sums, sums, nullptr);
    cpu::update().cut_squares(x[i], sizes[i], first, second, &upper, &lower);
  }
  values[0] = std::nanf("");
  float* infinite = memory.in_out(std::vector<float>{0.0F});
  set.largest_size(memory.input(values), n, partials, infinite, nullptr);
  return first_of({differs("largest", largest, {25}, 0), differs("cut", sums, {upper, lower}, 0),
                   lower == 0 ? "nothing is cut off" : "",
                   std::isinf(*infinite) ? "" : "NaN is a size", memory.violation()});
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
  const std::vector<float> gammas = random_values(shape.width, 2, 1, 1);
  const std::vector<float> betas = random_values(shape.width, 3);
  const std::vector<float> values = summed<T>(x, residual);
  NormArguments<T> arguments{.x = input_behind<T>(memory, x, shape.start),
                             .residual = with_residual ? memory.input(as<T>(residual)) : nullptr,
                             .gamma = memory.input(gammas),
                             .beta = memory.input(betas),
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
  const std::vector<float> gammas = random_values(shape.width, 6, 1, 1);
  const Moments moments = moments_of(values, shape);
  const RmsNorm plain = rms_of(shape, values, gammas, slopes);
  const NormBackwardArguments<T> arguments{
      .x = input_behind<T>(memory, values, shape.start),
      .dy = memory.input(as<T>(slopes)),
      .dsum = memory.input(as<T>(past)),
      .gamma = memory.input(gammas),
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

// Four blocks of rows have the bits of four calls merged in their tree: however many of the blocks
// a call has, a block's sums are the same.
template <typename T>
std::string check_norm_blocks_of(int64_t width, const TypedKernels<T>& kernels) {
  constexpr int64_t kBlocks = 4, kRows = 301;  // rows of a block
  DeviceMemory memory;
  const int64_t n = kBlocks * kRows * width;
  const T* x = memory.input(as<T>(random_values(n, 41)));
  const T* dy = memory.input(as<T>(random_values(n, 42)));
  const float* gamma = memory.input(random_values(width, 43));
  const float* mean = memory.input(random_values(kBlocks * kRows, 44));
  const float* rstd = memory.input(random_values(kBlocks * kRows, 45, 1, 2));
  T* dx = memory.output<T>(n);
  float* scratch = memory.output<float>(norm_backward_scratch(kBlocks * kRows, width, kBlocks));
  const auto sums_of = [&](int64_t first, int64_t blocks) {
    const NormBackwardArguments<T> arguments{.x = x + first * kRows * width,
                                             .dy = dy + first * kRows * width,
                                             .gamma = gamma,
                                             .mean = mean + first * kRows,
                                             .rstd = rstd + first * kRows,
                                             .rows = blocks * kRows,
                                             .width = width,
                                             .dx = dx,
                                             .dgamma = memory.output<float>(width),
                                             .dbeta = memory.output<float>(width),
                                             .blocks = blocks};
    kernels.norm_backward(arguments, scratch, nullptr);
    return arguments;
  };
  const auto whole = sums_of(0, kBlocks), left = sums_of(0, 2), third = sums_of(2, 1),
             fourth = sums_of(3, 1);
  const auto merged = [&](float* NormBackwardArguments<T>::*sums) {
    std::vector<double> all;
    for (int64_t i = 0; i < width; ++i) {
      all.push_back(double{(left.*sums)[i] + ((third.*sums)[i] + (fourth.*sums)[i])});
    }
    return all;
  };
  return first_of(
      {differs("blocks of dgamma", whole.dgamma, merged(&NormBackwardArguments<T>::dgamma), 0),
       differs("blocks of dbeta", whole.dbeta, merged(&NormBackwardArguments<T>::dbeta), 0),
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
    for (int64_t i = 2 * shape.width; i < std::min(n, 3 * shape.width); ++i) {
      values[static_cast<size_t>(i)] = i % 2 == 0 ? std::numeric_limits<float>::quiet_NaN()
                                                  : -std::numeric_limits<float>::infinity();
    }
    T* y = memory.output<T>(n);
    kernels.softmax(input_behind<T>(memory, values, shape.start), y, shape.rows, shape.width,
                    nullptr);
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
std::string check_exact_squares(const KernelSet& set) {
  for (const int64_t n : {int64_t{2}, int64_t{1000}, kPartials * kThreads + int64_t{77}}) {
    const std::string finding = check_exact_squares_of(n, set);
    if (!finding.empty()) return finding;
  }
  return "";
}
std::string check_norm_backward(const KernelSet& set) {
  return of_types([&]<typename T>() {
    std::vector<RowShape> shapes = row_shapes();
    // Several slices, and in one pass several rounds of rows, rows at once, warps a row (of which
    // the last has fewer vectors) and vectors a thread; and rows too wide for it.
    for (const RowShape& more : {RowShape{kSliceRows + 5, 35},
                                 {kSliceRows + 5, 40},
                                 {37, 776},
                                 {20, 2048},
                                 {3, 2056},
                                 {3, 4616}}) {
      shapes.push_back(more);
    }
    for (const RowShape& shape : shapes) {
      const std::string finding = first_of({check_norm_backward_of(shape, false, set.typed<T>()),
                                            check_norm_backward_of(shape, true, set.typed<T>())});
      if (!finding.empty()) return finding;
    }
    return first_of(
        {check_norm_blocks_of(33, set.typed<T>()), check_norm_blocks_of(40, set.typed<T>())});
  });
}
std::string check_softmax(const KernelSet& set) {
  return of_types([&]<typename T>() { return softmax_of_type(set.typed<T>()); });
}
std::string check_softmax_backward(const KernelSet& set) {
  return of_types([&]<typename T>() { return softmax_backward_of_type(set.typed<T>()); });
}
std::string check_sums(const KernelSet& set) {
  const std::string squares = check_squares(set);
  if (!squares.empty()) return squares;
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
