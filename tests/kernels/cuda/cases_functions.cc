// Functions of one tensor, comparisons and choices against the CPU ops in float64.
#include <array>
#include <limits>

#include "kernels/ops/elementwise.h"
#include "tests/kernels/cuda/comparison.h"

namespace weft::cuda {
namespace {

// Each function as an op, with parameters where it has some.
struct Named {
  Function function;
  testing::Function op;
};
template <Tensor (*kOp)(Context&, const Tensor&)>
Named plain(cpu::Unary kind) {
  return {{kind}, [](Context& cx, std::span<const Tensor> in) { return kOp(cx, in[0]); }};
}
std::vector<Named> functions() {
  return {
      plain<ops::negate>(cpu::Unary::kNegate),
      plain<ops::abs>(cpu::Unary::kAbs),
      plain<ops::exp>(cpu::Unary::kExp),
      plain<ops::log>(cpu::Unary::kLog),
      plain<ops::sqrt>(cpu::Unary::kSqrt),
      plain<ops::rsqrt>(cpu::Unary::kRsqrt),
      plain<ops::square>(cpu::Unary::kSquare),
      plain<ops::softplus>(cpu::Unary::kSoftplus),
      plain<ops::hard_sigmoid>(cpu::Unary::kHardSigmoid),
      plain<ops::hard_swish>(cpu::Unary::kHardSwish),
      plain<ops::quick_gelu>(cpu::Unary::kQuickGelu),
      plain<ops::elu_plus_one>(cpu::Unary::kEluPlusOne),
      {{cpu::Unary::kPower, 3},
       [](Context& cx, std::span<const Tensor> in) { return ops::power(cx, in[0], 3); }},
      {{cpu::Unary::kClamp, -1, 0.5F},
       [](Context& cx, std::span<const Tensor> in) { return ops::clamp(cx, in[0], -1, 0.5); }},
      {{cpu::Unary::kLeakyRelu, 0.25F},
       [](Context& cx, std::span<const Tensor> in) { return ops::leaky_relu(cx, in[0], 0.25); }},
      {{cpu::Unary::kElu, 0.5F},
       [](Context& cx, std::span<const Tensor> in) { return ops::elu(cx, in[0], 0.5); }}};
}

bool of_positive_numbers(cpu::Unary kind) {
  return kind == cpu::Unary::kLog || kind == cpu::Unary::kSqrt || kind == cpu::Unary::kRsqrt;
}

template <typename T>
std::string check_function_of(const Named& named, const TypedKernels<T>& kernels) {
  for (const int64_t n : {1, 33, 700}) {
    Bench bench(1);
    DeviceMemory memory;
    std::vector<float> values = random_values(n, 50, 2);
    for (float& value : values) {
      if (of_positive_numbers(named.function.kind)) value = 0.25F + std::abs(value);
    }
    values = rounded<T>(values);
    const std::vector<float> slopes = rounded<T>(random_values(n, 51));
    const T* x = memory.input(as<T>(values));
    T *y = memory.output<T>(n), *dx = memory.output<T>(n);
    kernels.unary(named.function, x, y, n, nullptr);
    kernels.unary_backward(named.function, x, memory.input(as<T>(slopes)), dx, n, nullptr);
    const std::vector<Tensor> inputs{in_double(bench, {n}, values)};
    const std::vector<double> expected =
        named.op(bench.context, inputs).template to_vector<double>();
    const auto gradients = gradients_of(bench, named.op, inputs, in_double(bench, {n}, slopes));
    const std::string what = "function " + std::to_string(static_cast<int>(named.function.kind));
    const std::string finding =
        first_of({differs(what, y, expected, near<T>(2e-6)),
                  differs(what + "'", dx, gradients[0], near<T>(4e-6)), memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}

// a [3, 5] beside b [5]; equal elements, infinities and a NaN among them.
template <typename T>
std::string check_selection_of(const TypedKernels<T>& kernels) {
  constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
  constexpr float kFar = std::numeric_limits<float>::infinity();
  const std::vector<float> a{1, -2, 3, kNone, 5, 0, -2, 7, 8, -kFar, 2, 4, 3, kFar, 5};
  const std::vector<float> b{1, -2, kNone, 4, 5};
  const std::vector<uint8_t> mask{1, 0, 255};  // of the rows
  const std::vector<int64_t> extents{3, 5}, whole{5, 1}, row{0, 1}, column{1, 0};
  DeviceMemory memory;
  const T *left = memory.input(as<T>(a)), *right = memory.input(as<T>(b));
  T *larger = memory.output<T>(15), *smaller = memory.output<T>(15), *kept = memory.output<T>(15);
  Walk<3> walk;
  Walk<4> choice;
  if (!make_walk<3>(extents, {whole, row, whole}, walk)) return "no walk";
  if (!make_walk<4>(extents, {column, whole, row, whole}, choice)) return "no walk";
  kernels.extreme(true, walk, left, right, larger, nullptr);
  kernels.extreme(false, walk, left, right, smaller, nullptr);
  kernels.choose(choice, memory.input(mask), left, right, kept, nullptr);
  for (size_t i = 0; i < 15; ++i) {
    const float x = a[i], y = b[i % 5];
    const auto is = [](T value, float wanted) {
      const float have = static_cast<float>(value);
      return have == wanted || (std::isnan(have) && std::isnan(wanted));
    };
    const bool unordered = std::isnan(x) || std::isnan(y);
    if (!is(larger[i], unordered ? kNone : std::max(x, y)) ||
        !is(smaller[i], unordered ? kNone : std::min(x, y))) {
      return "extreme of " + std::to_string(x) + " and " + std::to_string(y);
    }
    if (!is(kept[i], mask[i / 5] != 0 ? x : y)) return "choice " + std::to_string(i);
  }
  for (int kind = 0; kind <= static_cast<int>(cpu::Compare::kGreaterEqual); ++kind) {
    uint8_t* yes = memory.output<uint8_t>(15);
    kernels.compare(static_cast<cpu::Compare>(kind), walk, left, right, yes, nullptr);
    for (size_t i = 0; i < 15; ++i) {
      const float x = a[i], y = b[i % 5];
      const std::array<bool, 6> wanted{x == y, x != y, x<y, x <= y, x> y, x >= y};
      if (yes[i] != (wanted[static_cast<size_t>(kind)] ? 1 : 0)) {
        return "comparison " + std::to_string(kind) + " of element " + std::to_string(i);
      }
    }
  }
  return memory.violation();
}

}  // namespace

std::string check_functions(const KernelSet& set) {
  for (const Named& named : functions()) {
    const std::string finding =
        of_types([&]<typename T>() { return check_function_of(named, set.typed<T>()); });
    if (!finding.empty()) return finding;
  }
  return "";
}
std::string check_selection(const KernelSet& set) {
  return of_types([&]<typename T>() { return check_selection_of(set.typed<T>()); });
}

}  // namespace weft::cuda
