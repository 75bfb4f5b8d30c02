// Norms over channels, CTC, compared scores and drawn keys against the CPU ops in float64.
#include <limits>
#include <numeric>

#include "kernels/attention/hard.h"
#include "kernels/attention/scores.h"
#include "kernels/ops/losses.h"
#include "kernels/ops/norms.h"
#include "tests/kernels/cuda/comparison.h"

namespace weft::cuda {
namespace {

constexpr float kEpsilon = 1e-5F;

struct Image {
  int64_t samples, channels, elements, groups;  // groups 0: batch norm
};
std::vector<Image> images() {
  return {{2, 6, 5, 3}, {1, 1, 2, 1}, {3, 4, 1, 2},  {2, 6, 130, 1}, {5, 2, 300, 2},
          {0, 4, 3, 2}, {7, 3, 1, 0}, {2, 6, 33, 0}, {30, 2, 3, 0},  {3, 2, 500, 0}};
}

testing::Function norm_of(const Image& image) {
  return [image](Context& cx, std::span<const Tensor> in) {
    const double epsilon = static_cast<double>(kEpsilon);
    return image.groups == 0
               ? ops::batch_norm_training(cx, in[0], in[1], in[2], epsilon, nullptr, 0)
               : ops::group_norm(cx, in[0], in[1], in[2], image.groups, epsilon);
  };
}

// As the host puts the kernels together.
template <typename T>
struct ChannelNorm {
  ChannelNorm(const Image& image, const KernelSet& set, DeviceMemory& memory)
      : rows{image.samples, image.channels, image.elements,
             image.groups == 0 ? 0 : image.channels / image.groups},
        statistics(image.groups == 0 ? image.channels : image.samples * image.groups),
        kernels(set.typed<T>()),
        in_float(set.typed<float>()),
        rstd_of(set.rstd_of),
        sums(memory.output<float>(image.samples * image.channels)),
        more_sums(memory.output<float>(image.samples * image.channels)),
        variance(memory.output<float>(statistics)),
        mean(memory.output<float>(statistics)),
        rstd(memory.output<float>(statistics)),
        slopes(memory.output<float>(2 * statistics)),
        dgamma(memory.output<float>(image.channels)),
        dbeta(memory.output<float>(image.channels)),
        room(memory.output<float>(sum_middle_scratch(1, image.samples, image.channels, 1))) {}

  void sum_samples(const float* from, double factor, float* to) const {
    in_float.sum_middle(from, 1, rows.samples, rows.channels, factor, 1, room, to, nullptr);
  }
  void forward(const T* x, const T* gamma, const T* beta, T* y) const {
    const double share = 1 / static_cast<double>(rows.samples * rows.elements);
    if (rows.together == 0) {
      kernels.channel_sums(rows, x, nullptr, sums, nullptr);
      sum_samples(sums, share, mean);
      kernels.channel_sums(rows, x, mean, sums, nullptr);
      sum_samples(sums, share, variance);
      rstd_of(variance, statistics, kEpsilon, rstd, nullptr);
    } else {
      kernels.group_moments(x, statistics, rows.together * rows.elements, kEpsilon, mean, rstd,
                            nullptr);
    }
    kernels.normalize_channels(rows, x, gamma, beta, mean, rstd, y, nullptr);
  }
  void backward(const T* x, const T* dy, const T* gamma, T* dx) const {
    const ChannelNormGradient<T> g{rows, x, dy, gamma, mean, rstd, dx};
    kernels.channel_gradient_sums(g, sums, more_sums, nullptr);
    sum_samples(sums, 1, dbeta);
    sum_samples(more_sums, 1, dgamma);
    const bool batch = rows.together == 0;
    kernels.channel_gradient(g, batch ? dbeta : sums, batch ? dgamma : more_sums, slopes, nullptr);
  }

  const ChannelRows rows;
  const int64_t statistics;
  const TypedKernels<T>& kernels;
  const TypedKernels<float>& in_float;
  decltype(&cuda::rstd_of) rstd_of;
  float *const sums, *const more_sums, *const variance, *const mean, *const rstd, *const slopes;
  float *const dgamma, *const dbeta, *const room;
};

template <typename T>
std::string check_channel_norm_of(const Image& image, const KernelSet& set) {
  Bench bench(1);
  DeviceMemory memory;
  const Shape shape{image.samples, image.channels, image.elements};
  const int64_t n = shape.elements();
  const std::vector<float> values = rounded<T>(random_values(n, 81, 2, 0.5));
  const std::vector<float> slopes = rounded<T>(random_values(n, 82));
  const std::vector<float> scales = rounded<T>(random_values(image.channels, 83, 0.5, 1));
  const std::vector<float> shifts = rounded<T>(random_values(image.channels, 84));
  const T *x = memory.input(as<T>(values)), *gamma = memory.input(as<T>(scales));
  T *y = memory.output<T>(n), *dx = memory.output<T>(n);
  const ChannelNorm<T> norm(image, set, memory);
  norm.forward(x, gamma, memory.input(as<T>(shifts)), y);
  norm.backward(x, memory.input(as<T>(slopes)), gamma, dx);
  const std::vector<Tensor> inputs{in_double(bench, shape, values),
                                   in_double(bench, {image.channels}, scales),
                                   in_double(bench, {image.channels}, shifts)};
  const testing::Function op = norm_of(image);
  const Tensor expected = op(bench.context, inputs);
  const auto gradients = gradients_of(bench, op, inputs, in_double(bench, shape, slopes));
  return first_of(
      {differs("norm of " + shape.to_string(), y, expected.to_vector<double>(), near<T>(2e-5)),
       differs("dx of " + shape.to_string(), dx, gradients[0], 4 * near<T>(2e-5)),
       differs("dgamma", norm.dgamma, gradients[1], 2e-4),
       differs("dbeta", norm.dbeta, gradients[2], 2e-4), memory.violation()});
}

// ---- CTC
struct Speech {
  int64_t times, classes, width;
  std::vector<int64_t> input_lengths, target_lengths;
};
std::vector<Speech> speeches() {
  return {{1, 2, 1, {1}, {1}},
          {7, 5, 3, {7, 5, 0}, {3, 0, 0}},
          {6, 4, 3, {6, 2, 6}, {2, 3, 3}},  // the second has no path
          {40, 35, 12, {40, 33}, {12, 9}}};
}

template <typename T>
CtcProblem<T> problem_of(const Speech& s, DeviceMemory& memory, const std::vector<float>& logits,
                         const std::vector<int64_t>& targets) {
  const int64_t batch = static_cast<int64_t>(s.input_lengths.size());
  const int64_t states = batch * s.times * (2 * s.width + 1);
  return {.logits = memory.input(as<T>(logits)),
          .targets = memory.input(targets),
          .input_lengths = memory.input(s.input_lengths),
          .target_lengths = memory.input(s.target_lengths),
          .times = s.times,
          .batch = batch,
          .classes = s.classes,
          .width = s.width,
          .blank = 1,
          .log_sums = memory.output<double>(s.times * batch),
          .alpha = memory.output<double>(states),
          .beta = memory.output<double>(states)};
}

std::vector<int64_t> targets_of(const Speech& s) {
  std::vector<int64_t> targets;
  for (size_t i = 0; i < s.input_lengths.size() * static_cast<size_t>(s.width); ++i) {
    const int64_t label = static_cast<int64_t>(i * i / 2) % (s.classes - 1);  // some repeated
    targets.push_back(label == 1 ? s.classes - 1 : label);
  }
  for (int64_t& target : targets) target = target == 1 ? 0 : target;
  return targets;
}

template <typename T>
std::string check_ctc_of(const Speech& s, const TypedKernels<T>& kernels) {
  Bench bench(1);
  DeviceMemory memory;
  const int64_t batch = static_cast<int64_t>(s.input_lengths.size());
  const Shape shape{s.times, batch, s.classes};
  const std::vector<float> logits = rounded<T>(random_values(shape.elements(), 85, 2));
  const std::vector<float> slopes = rounded<T>(random_values(batch, 86));
  const std::vector<int64_t> targets = targets_of(s);
  const CtcProblem<T> problem = problem_of<T>(s, memory, logits, targets);
  T *loss = memory.output<T>(batch), *dx = memory.output<T>(shape.elements());
  kernels.ctc(problem, loss, nullptr);
  kernels.ctc_backward(problem, memory.input(as<T>(slopes)), dx, nullptr);
  Context& cx = bench.context;
  const testing::Function op = [&](Context& c, std::span<const Tensor> in) {
    return ops::ctc_loss(c, in[0], testing::ids(cx, {batch, s.width}, targets),
                         testing::ids(cx, {batch}, s.input_lengths),
                         testing::ids(cx, {batch}, s.target_lengths), 1);
  };
  const std::vector<Tensor> inputs{in_double(bench, shape, logits)};
  const Tensor expected = op(cx, inputs);
  const auto gradients = gradients_of(bench, op, inputs, in_double(bench, {batch}, slopes));
  return first_of({differs("ctc", loss, expected.to_vector<double>(), near<T>(1e-6)),
                   differs("its gradient", dx, gradients[0], near<T>(1e-6)), memory.violation()});
}

// A length or a target that is not allowed: NaN for this sample, the loss for the other.
std::string check_ctc_not_allowed(const KernelSet& set) {
  using ops::Numbers;
  struct Wrong {
    int64_t input_length, target_length, target;
    ops::OutOfRange found;
  };
  for (const Wrong& wrong : {Wrong{5, 1, 2, {Numbers::kInputLength, 5, 5}},
                             {-1, 1, 2, {Numbers::kInputLength, -1, 5}},
                             {3, 3, 2, {Numbers::kTargetLength, 3, 3}},
                             {3, 1, 4, {Numbers::kTarget, 4, 4, 1}},
                             {3, 1, 1, {Numbers::kTarget, 1, 4, 1}}}) {
    DeviceMemory memory;
    const Speech s{4, 4, 2, {wrong.input_length, 3}, {wrong.target_length, 1}};
    float* loss = memory.output<float>(2);
    auto problem = problem_of<float>(s, memory, random_values(32, 87), {wrong.target, 0, 2, 0});
    problem.note = memory.in_out(std::vector<Note>(1));
    set.typed<float>().ctc(problem, loss, nullptr);
    if (!std::isnan(loss[0]) || !std::isfinite(loss[1])) return "a sample that is not allowed";
    const std::string finding =
        first_of({noted(*problem.note, wrong.found.numbers, wrong.found.end, {wrong.found.value}),
                  problem.note->found.blank == wrong.found.blank ? "" : "another blank",
                  memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}

// ---- attention
template <typename T>
std::string check_compared_of(const ComparedShape& c, const TypedKernels<T>& kernels) {
  Bench bench(1);
  DeviceMemory memory;
  const Shape shape_q{c.rows, c.queries, c.features}, shape_k{c.rows, c.keys, c.features};
  const Shape shape_s{c.rows, c.queries, c.keys};
  const std::vector<float> queries = rounded<T>(random_values(shape_q.elements(), 88));
  const std::vector<float> keys = rounded<T>(random_values(shape_k.elements(), 89));
  const std::vector<float> weights = rounded<T>(random_values(c.features, 90));
  const std::vector<float> slopes = rounded<T>(random_values(shape_s.elements(), 91));
  const T *q = memory.input(as<T>(queries)), *k = memory.input(as<T>(keys));
  const T *v = memory.input(as<T>(weights)), *ds = memory.input(as<T>(slopes));
  T *scores = memory.output<T>(shape_s.elements()), *dq = memory.output<T>(shape_q.elements());
  T* dk = memory.output<T>(shape_k.elements());
  float* by_query = memory.output<float>(shape_q.elements());
  kernels.compared(c, q, k, v, scores, nullptr);
  kernels.compared_backward(c, q, k, v, ds, dq, dk, by_query, nullptr);
  std::vector<float> dv(static_cast<size_t>(c.features));
  for (int64_t i = 0; i < shape_q.elements(); ++i) {
    dv[static_cast<size_t>(i % c.features)] += by_query[i];
  }
  const std::vector<Tensor> inputs{in_double(bench, shape_q, queries),
                                   in_double(bench, shape_k, keys),
                                   in_double(bench, {c.features}, weights)};
  const testing::Function op = [](Context& cx, std::span<const Tensor> in) {
    return attention::compared(cx, in[0], in[1], in[2]);
  };
  const Tensor expected = op(bench.context, inputs);
  const auto gradients = gradients_of(bench, op, inputs, in_double(bench, shape_s, slopes));
  return first_of({differs("scores", scores, expected.to_vector<double>(), near<T>(2e-6)),
                   differs("dq", dq, gradients[0], near<T>(4e-6)),
                   differs("dk", dk, gradients[1], near<T>(4e-6)),
                   differs("dv", dv.data(), gradients[2], 1e-5), memory.violation()});
}

template <typename T>
std::string check_draw_of(int64_t keys, const TypedKernels<T>& kernels) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  Bench bench(1);
  DeviceMemory memory;
  const RandomKey key{.seed = 7, .stream = 1234567890123};
  const Shape shape{4, 9}, global{11, 30};
  const ops::GlobalIndex where{global, {3, 17}};
  std::vector<float> values = rounded<T>(random_values(shape.elements() * keys, 92, 2));
  for (size_t i = 0; i < values.size(); i += 3) values[i] = kNothing;
  std::fill_n(values.begin(), keys, kNothing);
  const std::array<int64_t, 2> strides{30, 1};
  Walk<1> walk;
  if (!make_walk<1>(shape.extents(), {std::span<const int64_t>(strides)}, walk)) return "no walk";
  int64_t* index = memory.output<int64_t>(shape.elements());
  kernels.draw(walk, memory.input(as<T>(values)), keys, key, 3 * 30 + 17, index, nullptr);
  const Tensor scores = Tensor::from<float>(*bench.allocator, {shape[0], shape[1], keys}, values);
  const std::vector<int64_t> want =
      attention::draw(bench.context, scores, key, where).to_vector<int64_t>();
  for (size_t i = 0; i < want.size(); ++i) {
    if (index[i] != want[i]) return "draw " + std::to_string(i) + " of " + std::to_string(keys);
  }
  return memory.violation();
}

}  // namespace

std::string check_channel_norm(const KernelSet& set) {
  for (const Image& image : images()) {
    const std::string finding =
        of_types([&]<typename T>() { return check_channel_norm_of<T>(image, set); });
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_ctc(const KernelSet& set) {
  for (const Speech& speech : speeches()) {
    const std::string finding =
        of_types([&]<typename T>() { return check_ctc_of(speech, set.typed<T>()); });
    if (!finding.empty()) return finding;
  }
  return check_ctc_not_allowed(set);
}

std::string check_compared(const KernelSet& set) {
  for (const ComparedShape& shape : std::vector<ComparedShape>{
           {1, 1, 1, 1}, {2, 3, 5, 4}, {0, 2, 2, 3}, {2, 7, 2, 33}, {1, 20, 9, 70}}) {
    const std::string finding =
        of_types([&]<typename T>() { return check_compared_of(shape, set.typed<T>()); });
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_draw(const KernelSet& set) {
  for (const int64_t keys : {1, 5, 70}) {
    const std::string finding =
        of_types([&]<typename T>() { return check_draw_of(keys, set.typed<T>()); });
    if (!finding.empty()) return finding;
  }
  return "";
}

}  // namespace weft::cuda
