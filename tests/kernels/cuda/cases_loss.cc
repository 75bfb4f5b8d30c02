// Cross-entropy and its gradient against the CPU op in float64, and of a vocabulary in shards
// against the whole.
#include <algorithm>
#include <limits>

#include "kernels/cuda/launch.h"
#include "tests/kernels/cuda/comparison.h"

namespace weft::cuda {
namespace {

constexpr int64_t kIgnored = -100;
constexpr float kSlope = 0.75F;

std::vector<int64_t> labels_of(const RowShape& shape) {
  std::vector<int64_t> labels;
  for (int64_t row = 0; row < shape.rows; ++row) {
    labels.push_back(row % 3 == 2 ? kIgnored : (row * 7 + shape.width - 1) % shape.width);
  }
  return labels;
}

// Rows `step` apart, with NaN behind each.
std::vector<float> laid_out(const std::vector<float>& values, const RowShape& shape, int64_t step) {
  std::vector<float> rows(static_cast<size_t>(shape.rows * step),
                          std::numeric_limits<float>::quiet_NaN());
  for (int64_t row = 0; row < shape.rows; ++row) {
    std::copy_n(values.begin() + row * shape.width, shape.width, rows.begin() + row * step);
  }
  return rows;
}

struct Problem {
  RowShape shape;
  int64_t step;
  float smoothing;
  std::vector<float> values;  // [rows, width]
  std::vector<int64_t> labels;
  LossRules rules() const {
    return {.ignore_index = kIgnored, .smoothing = smoothing, .classes = shape.width};
  }
  LogitRows rows() const { return {shape.rows, shape.width, step}; }
  std::string name(const char* what) const {
    return std::string(what) + " [" + std::to_string(shape.rows) + ", " +
           std::to_string(shape.width) + "] in rows of " + std::to_string(step);
  }
};

// What the CPU op says: the loss of each row, and the gradient in rows `step` apart.
struct Answer {
  std::vector<double> losses, slopes;
};
Answer answer_of(const Problem& problem) {
  Bench bench(1);
  Answer answer;
  const ops::TokenLoss rule{.ignore_index = kIgnored,
                            .smoothing = static_cast<double>(problem.smoothing)};
  const auto op = [&](Context& cx, std::span<const Tensor> in) {
    return ops::cross_entropy_sum(cx, in[0], in[1], rule);
  };
  const int64_t width = problem.shape.width;
  for (int64_t row = 0; row < problem.shape.rows; ++row) {
    const std::vector<float> one(problem.values.begin() + row * width,
                                 problem.values.begin() + (row + 1) * width);
    const Tensor logits = in_double(bench, {1, width}, one);
    const Tensor label =
        testing::ids(bench.context, {1}, {problem.labels[static_cast<size_t>(row)]});
    answer.losses.push_back(
        ops::cross_entropy_sum(bench.context, logits, label, rule).to_vector<double>()[0]);
    const Tensor dy =
        Tensor::full(*bench.allocator, Shape{}, static_cast<double>(kSlope), DType::kF64);
    const auto slopes = gradients_of(bench, op, {logits, label}, dy)[0];
    answer.slopes.insert(answer.slopes.end(), slopes.begin(), slopes.end());
    answer.slopes.resize(static_cast<size_t>((row + 1) * problem.step));
  }
  return answer;
}

// At once, and in pieces of which this is the only shard.
template <typename T>
std::string check_problem(const Problem& problem, const TypedKernels<T>& kernels,
                          const KernelSet& set) {
  DeviceMemory memory;
  const int64_t rows = problem.shape.rows;
  const std::vector<T> logits = as<T>(laid_out(problem.values, problem.shape, problem.step));
  const int64_t* label = memory.input(problem.labels);
  const float* slope = memory.input(std::vector<float>{kSlope});
  T *once = memory.in_out(logits), *apart = memory.in_out(logits);
  float *loss = memory.output<float>(rows), *loss_apart = memory.output<float>(rows);
  kernels.loss_and_gradient(once, label, problem.rules(), slope, problem.rows(), loss, nullptr);
  float *maximum = memory.output<float>(rows), *terms = memory.output<float>(2 * rows);
  kernels.loss_terms(memory.input(logits), label, problem.rules(), problem.rows(), maximum, terms,
                     nullptr);
  set.loss_total(label, terms, problem.rules(), rows, maximum, loss_apart, nullptr);
  kernels.loss_gradient(apart, label, maximum, problem.rules(), slope, problem.rows(), nullptr);
  const Answer answer = answer_of(problem);
  // A loss is a difference of two numbers of the logits' size, each rounded.
  return first_of({differs(problem.name("loss"), loss, answer.losses, 3e-5),
                   differs(problem.name("its gradient"), once, answer.slopes, near<T>(4e-6)),
                   differs(problem.name("loss in pieces"), loss_apart, answer.losses, 3e-5),
                   differs(problem.name("gradient of it"), apart, answer.slopes, near<T>(2e-5)),
                   memory.violation()});
}

template <typename T>
std::string problems_of_type(const TypedKernels<T>& kernels, const KernelSet& set) {
  std::vector<RowShape> shapes = row_shapes();
  shapes.push_back({2, 6201});  // the widest blocks
  for (const RowShape& shape : shapes) {
    const int64_t filled = (shape.width + 16) / 16 * 16;
    for (const int64_t step : {shape.width, filled}) {
      // Far from zero, and near it.
      const bool far = step == shape.width;
      Problem problem{shape, step, far ? 0.0F : 0.25F, {}, labels_of(shape)};
      problem.values =
          rounded<T>(random_values(shape.rows * shape.width, 12, far ? 4 : 2, far ? -200 : 0));
      const std::string finding = check_problem(problem, kernels, set);
      if (!finding.empty()) return finding;
    }
  }
  return "";
}

// Two shards of a vocabulary against the whole.
template <typename T>
std::string shards_of_type(const TypedKernels<T>& kernels, const KernelSet& set, float smoothing) {
  const int64_t rows = 4, width = 40, half = width / 2;
  DeviceMemory memory;
  const std::vector<float> values = rounded<T>(random_values(rows * width, 34, 3));
  const Problem whole{{rows, width}, width, smoothing, values, {7, 33, kIgnored, 20}};
  const Answer answer = answer_of(whole);
  std::vector<float> parts[2], highest;
  std::vector<double> slopes[2];
  for (size_t i = 0; i < values.size(); ++i) {
    parts[i % width / half].push_back(values[i]);
    slopes[i % width / half].push_back(answer.slopes[i]);
  }
  const int64_t* label = memory.input(whole.labels);
  const LogitRows shape{rows, half, half};
  LossRules rules = whole.rules();
  float* maxima[2] = {memory.output<float>(rows), memory.output<float>(rows)};
  float* terms[2] = {memory.output<float>(2 * rows), memory.output<float>(2 * rows)};
  for (int64_t i = 0; i < 2; ++i) {
    rules.first = i * half;
    kernels.loss_terms(memory.input(as<T>(parts[i])), label, rules, shape, maxima[i], terms[i],
                       nullptr);
  }
  for (int64_t i = 0; i < rows; ++i) highest.push_back(std::max(maxima[0][i], maxima[1][i]));
  for (int i = 0; i < 2; ++i) {
    set.shift_terms(maxima[i], memory.input(highest), rows, terms[i], nullptr);
  }
  std::vector<float> sums;
  for (int64_t i = 0; i < 2 * rows; ++i) sums.push_back(terms[0][i] + terms[1][i]);
  float *to_lse = memory.in_out(highest), *loss = memory.output<float>(rows);
  set.loss_total(label, memory.input(sums), rules, rows, to_lse, loss, nullptr);
  std::string finding = differs("sharded loss", loss, answer.losses, 1e-5);
  const float* slope = memory.input(std::vector<float>{kSlope});
  for (int64_t i = 0; i < 2; ++i) {
    rules.first = i * half;
    T* gradient = memory.in_out(as<T>(parts[i]));
    kernels.loss_gradient(gradient, label, to_lse, rules, slope, shape, nullptr);
    finding = first_of({finding, differs("sharded gradient", gradient, slopes[i], near<T>(4e-6))});
  }
  return first_of({finding, memory.violation()});
}

std::string check_unknown_labels(const KernelSet& set) {
  DeviceMemory memory;
  const std::vector<int64_t> unknown{int64_t{1} << 40, -1, -(int64_t{1} << 40)};
  const std::vector<int64_t> labels{kIgnored, unknown[0], unknown[1], unknown[2]};
  LossRules rules{.ignore_index = kIgnored, .classes = 5};
  float *loss = memory.output<float>(4), *total = memory.output<float>(4);
  Note* notes = memory.in_out(std::vector<Note>(2));
  rules.outside = {notes, ops::Numbers::kLabel};
  set.typed<float>().loss_and_gradient(memory.in_out(random_values(20, 14)), memory.input(labels),
                                       rules, memory.input(std::vector<float>{1}), {4, 5, 5}, loss,
                                       nullptr);
  rules.outside.note = notes + 1;
  set.loss_total(memory.input(labels), memory.input(std::vector<float>(8, 1)), rules, 4,
                 memory.in_out(std::vector<float>(4, 1)), total, nullptr);
  for (int row = 1; row < 4; ++row) {
    if (!std::isnan(loss[row]) || !std::isnan(total[row])) return "a label outside has a loss";
  }
  return first_of({noted(notes[0], ops::Numbers::kLabel, 5, unknown),
                   noted(notes[1], ops::Numbers::kLabel, 5, unknown), memory.violation()});
}

template <typename T>
std::string reseeding_of_type(const TypedKernels<T>& kernels) {
  DeviceMemory memory;
  const std::vector<float> values = rounded<T>(random_values(100, 15));
  T *same = memory.in_out(as<T>(values)), *half = memory.in_out(as<T>(values));
  const float* seed = memory.input(std::vector<float>{0.5F});
  kernels.reseed(seed, seed, 100, same, nullptr);
  kernels.reseed(memory.input(std::vector<float>{0.25F}), seed, 100, half, nullptr);
  std::vector<double> unchanged(values.begin(), values.end()), halved;
  for (const double value : unchanged) halved.push_back(value / 2);
  return first_of({differs("same seed", same, unchanged, 0),
                   differs("half the seed", half, halved, near<T>(0)), memory.violation()});
}

}  // namespace

std::string check_cross_entropy(const KernelSet& set) {
  return first_of({of_types([&]<typename T>() {
                     return first_of({problems_of_type(set.typed<T>(), set),
                                      shards_of_type(set.typed<T>(), set, 0.0F),
                                      shards_of_type(set.typed<T>(), set, 0.25F),
                                      reseeding_of_type(set.typed<T>())});
                   }),
                   check_unknown_labels(set)});
}

}  // namespace weft::cuda
