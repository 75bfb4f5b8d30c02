// The optimizer's kernels, which take many arrays in a launch, against the optimizer on the CPU.
#include "kernels/cpu/update.h"
#include "kernels/cuda/pieces.cuh"
#include "tests/kernels/cuda/comparison.h"
#include "tests/testing/rank_runner.h"
#include "worker/optimizer/optimizer.h"

namespace weft::cuda {
namespace {

std::vector<double> in_order(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

// Several updates beside the optimizer's own.
std::string check_adamw_steps(const KernelSet& set) {
  constexpr int64_t kCount = 257;
  constexpr double kRate = 3e-3, kScale = 0.5;
  std::string finding;
  testing::run_ranks(1, [&](Rank& rank) {
    const AdamWOptions options{.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-6, .weight_decay = 0.1};
    const std::vector<float> start = random_values(kCount, 41), none(kCount, 0.0F);
    ParameterInfo info;
    info.name = "p";
    info.shape = Shape{kCount};
    info.decay = true;
    Tensor value = Tensor::from<float>(*rank.allocator, info.shape, start);
    value.set_requires_grad(true);
    AdamW optimizer(rank, {{info, value}}, options);
    DeviceMemory memory;
    float *p = memory.in_out(start), *m = memory.in_out(none), *v = memory.in_out(none);
    for (uint64_t n = 1; n <= 3 && finding.empty(); ++n) {
      const std::vector<float> gradient = random_values(kCount, 50 + n);
      value.set_grad(Tensor::from<float>(*rank.allocator, info.shape, gradient));
      optimizer.step(kRate, kScale);
      const double count = static_cast<double>(n);
      const AdamWConstants constants{
          .keep = static_cast<float>(1 - kRate * options.weight_decay),
          .beta1 = static_cast<float>(options.beta1),
          .rest1 = static_cast<float>(1 - options.beta1),
          .beta2 = static_cast<float>(options.beta2),
          .rest2 = static_cast<float>(1 - options.beta2),
          .step = static_cast<float>(kRate / (1 - std::pow(options.beta1, count))),
          .root = static_cast<float>(1 / std::sqrt(1 - std::pow(options.beta2, count))),
          .epsilon = static_cast<float>(options.epsilon),
          .gradient_scale = 2};
      // Half of the scale comes from the device.
      const float* factor = memory.input(std::vector<float>{static_cast<float>(kScale) / 2});
      float* working = memory.output<float>(kCount);
      // In two parts, of which the second is not aligned.
      const float* g = memory.input(gradient);
      constexpr int64_t kPart = 129;
      const std::vector<AdamWArrays<float, float>> parts{
          {constants, g, p, m, v, working, kPart},
          {constants, g + kPart, p + kPart, m + kPart, v + kPart, working + kPart, kCount - kPart}};
      set.typed<float>().adamw(parts, factor, nullptr);
      const float* infinite = memory.input(std::vector<float>{INFINITY});
      set.typed<float>().adamw(parts, infinite, nullptr);  // left out
      const AdamW::State& state = optimizer.states()[0];
      finding =
          first_of({differs("p", p, in_order(value.to_vector<float>()), 2e-7),
                    differs("working copy", working, in_order(value.to_vector<float>()), 2e-7),
                    differs("m", m, in_order(state.first_moment.to_vector<float>()), 2e-7),
                    differs("v", v, in_order(state.second_moment.to_vector<float>()), 2e-7),
                    memory.violation()});
    }
  });
  return finding;
}

// More parameters than a launch takes, one of them of several pieces, each with constants of its
// own.
std::string check_many_updates(const KernelSet& set) {
  DeviceMemory memory;
  std::vector<AdamWArrays<float, float>> updates;
  std::vector<std::vector<double>> expected;
  for (int64_t i = 0; i < 43; ++i) {
    const int64_t n = i == 3 ? kPieceElements + 5 : i % 7;
    const std::vector<float> start = random_values(n, 70 + static_cast<uint64_t>(i));
    const std::vector<float> zeros(start.size(), 0.0F), ones(start.size(), 1.0F);
    // Without a gradient that counts: p (1 - i / 64).
    const AdamWConstants constants{1 - static_cast<float>(i) / 64, 0, 0, 0, 0, 0, 1, 1, 1};
    updates.push_back({constants, memory.input(ones), memory.in_out(start), memory.in_out(zeros),
                       memory.in_out(zeros), nullptr, n});
    expected.emplace_back();
    for (const float value : start) {
      expected.back().push_back(static_cast<double>(constants.keep * value));
    }
  }
  set.typed<float>().adamw(updates, nullptr, nullptr);
  for (size_t i = 0; i < updates.size(); ++i) {
    const std::string finding = differs("p of " + std::to_string(i), updates[i].p, expected[i], 0);
    if (!finding.empty()) return finding;
  }
  return memory.violation();
}

}  // namespace

// Half-width gradients and working copies of the fp32 step, of which bf16 keeps halves.
std::string check_adamw(const KernelSet& set) {
  const auto half = [&]<typename T>() {
    constexpr int64_t kCount = 67;
    DeviceMemory memory;
    const std::vector<float> start = random_values(kCount, 42), none(kCount, 0.0F);
    const std::vector<float> gradient = rounded<T>(random_values(kCount, 43));
    const AdamWConstants constants{0.99F, 0.9F, 0.1F, 0.95F, 0.05F, 1e-2F, 4.0F, 1e-8F, 0.5F};
    float *m = memory.in_out(none), *v = memory.in_out(none);
    float *q = memory.in_out(start), *n = memory.in_out(none), *w = memory.in_out(none);
    constexpr bool kInHalves = std::is_same_v<T, bfloat16>;
    std::vector<AdamWKept<T>> kept(start.begin(), start.end());
    std::vector<T> values(start.size());
    if constexpr (kInHalves) cpu::update().split(start.data(), values.data(), kept.data(), kCount);
    AdamWKept<T>* p = memory.in_out(kept);
    T* working = kInHalves ? memory.in_out(values) : memory.output<T>(kCount);
    const AdamWArrays<T, T> halves{constants, memory.input(as<T>(gradient)), p, m, v, working,
                                   kCount};
    set.typed<T>().adamw({&halves, 1}, nullptr, nullptr);
    float* wide = memory.output<float>(kCount);
    const AdamWArrays<float, float> floats{constants, memory.input(gradient), q, n, w, wide,
                                           kCount};
    set.typed<float>().adamw({&floats, 1}, nullptr, nullptr);
    const std::vector<double> expected(q, q + kCount);
    std::string finding;
    if constexpr (kInHalves) {  // no other halves make the number
      std::vector<float> whole(kCount);
      cpu::update().join(working, p, whole.data(), kCount);
      finding = differs("p", whole.data(), expected, 0);
    } else {
      finding =
          first_of({differs("p", p, expected, 0),
                    differs("working copy", working, in_order(rounded<T>({q, q + kCount})), 0)});
    }
    return first_of({finding, memory.violation()});
  };
  return first_of({check_adamw_steps(set), check_many_updates(set), half.operator()<bfloat16>(),
                   half.operator()<float16>()});
}

// More arrays than a launch takes, of several pieces, of none, and not aligned.
std::string check_squares(const KernelSet& set) {
  DeviceMemory memory;
  std::vector<FloatArray> arrays;
  double expected = 0;
  for (int64_t i = 0; i < 131; ++i) {
    const int64_t n = i == 2 ? 2 * kPieceElements + 77 : i == 130 ? kPieceElements : i * i % 37;
    const std::vector<float> values = random_values(n, 33 + static_cast<uint64_t>(i), 2, 0.25);
    for (const float value : values) expected += std::pow(static_cast<double>(value), 2);
    arrays.push_back({input_behind<float>(memory, values, i % 3), n});
  }
  double* partials = memory.output<double>(sum_of_squares_scratch(arrays));
  double *out = memory.output<double>(1), *none = memory.output<double>(1);
  set.sum_of_squares(arrays, partials, out, nullptr);
  set.sum_of_squares({}, partials, none, nullptr);
  return first_of({differs("squares", out, {expected}, 1e-6), differs("of none", none, {0}, 0),
                   memory.violation()});
}

}  // namespace weft::cuda
