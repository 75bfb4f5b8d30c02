#include "tests/kernels/op_table/run.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <numeric>
#include <span>

#include "kernels/ops/ops.h"
#include "kernels/ops/random.h"
#include "kernels/tensor/strided.h"

namespace weft::op_table {
namespace {

// Address space that takes memory only where it is touched.
class LazyAllocator final : public Allocator {
 public:
  void* allocate(size_t bytes) override {
    void* data = ::mmap(nullptr, std::max<size_t>(bytes, 1), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    WEFT_CHECK(data != MAP_FAILED, "{} bytes of address space", bytes);
    return data;
  }
  void release(void* data, size_t bytes) noexcept override {
    ::munmap(data, std::max<size_t>(bytes, 1));
  }
  AllocatorStats stats() const override { return {}; }
  void reset_peak() override {}
};

struct Placement {
  std::vector<int64_t> strides;
  int64_t offset = 0, elements = 1;  // of the storage
};

// Extents of the storage and steps through it, walked in `order` from the outermost dim.
Placement place(const Shape& shape, bool reversed, int64_t step, int64_t margin) {
  Placement placement;
  placement.strides.resize(static_cast<size_t>(shape.dims()));
  for (int i = shape.dims() - 1; i >= 0; --i) {
    const int dim = reversed ? shape.dims() - 1 - i : i;
    placement.strides[static_cast<size_t>(dim)] = placement.elements * step;
    placement.offset += placement.elements * margin;
    placement.elements *= shape[dim] * step + 2 * margin;
  }
  return placement;
}

Tensor lay_out_far(Context& cx, const Tensor& values) {
  static LazyAllocator lazy;
  const Shape& shape = values.shape();
  constexpr int64_t kStep = (int64_t{1} << 31) + 17;
  int far = -1;  // the dim of the smallest extent above one, else the first
  for (int dim = 0; dim < shape.dims(); ++dim) {
    if (far < 0 || (shape[dim] > 1 && (shape[far] <= 1 || shape[dim] < shape[far]))) far = dim;
  }
  if (far < 0 || shape[far] > 64) return values;
  Shape rest = shape;
  rest[far] = 1;
  Placement placement = place(rest, false, 1, 0);
  placement.strides[static_cast<size_t>(far)] = kStep;
  const int64_t elements = placement.elements + kStep * std::max<int64_t>(0, shape[far] - 1);
  const Tensor storage = Tensor::empty(lazy, Shape{elements}, values.dtype());
  const Tensor view = storage.view(shape, placement.strides, 0);
  copy_into(cx.pool, values, view);
  return view;
}

// Only the first index of the first dim that has several; -1: no dim has.
int repeated_dim(const Shape& shape) {
  for (int dim = 0; dim < shape.dims(); ++dim) {
    if (shape[dim] > 1) return dim;
  }
  return -1;
}

Tensor lay_out_expanded(const Tensor& values) {
  const int dim = repeated_dim(values.shape());
  if (dim < 0) return values;
  std::vector<int64_t> strides(values.strides().begin(), values.strides().end());
  strides[static_cast<size_t>(dim)] = 0;
  return values.view(values.shape(), strides, 0);
}

// Of an output's first `count` elements at least; bf16 numbers, so that they are the same in every
// dtype. Drawn once: finite differences ask for them at each step.
const std::vector<double>& weights_of(size_t output, size_t count) {
  static thread_local std::deque<std::vector<double>> drawn;
  if (drawn.size() <= output) drawn.resize(output + 1);
  std::vector<double>& weights = drawn[output];
  while (weights.size() < count) {
    const float normal = static_cast<float>(normal_at({99 + output, 3}, weights.size()));
    weights.push_back(static_cast<double>(static_cast<float>(bfloat16(normal))));
  }
  return weights;
}

// A step that visits all of n places, far from the last one each time.
int64_t stride_through(int64_t n) {
  int64_t step = std::max<int64_t>(1, n * 618 / 1000);
  while (std::gcd(step, n) != 1) ++step;
  return step;
}

}  // namespace

const char* name_of(Layout layout) {
  constexpr const char* kNames[] = {"contiguous", "transposed", "sliced",
                                    "strided",    "far",        "expanded"};
  return kNames[static_cast<size_t>(layout)];
}

std::vector<Tensor> draw(Context& cx, const Case& item, DType rounded_to) {
  std::vector<Tensor> inputs;
  for (size_t number = 0; number < item.inputs.size(); ++number) {
    const Input& input = item.inputs[number];
    const RandomKey key{11 + number, 7};
    if (input.draw == Draw::kGiven) {
      inputs.push_back(Tensor::from<int64_t>(cx.allocator, input.shape, input.given));
      continue;
    }
    Tensor x =
        Tensor::empty(cx.allocator, input.shape, input.floating() ? DType::kF64 : DType::kI64);
    for (int64_t i = 0; i < x.elements(); ++i) {
      const uint64_t at = static_cast<uint64_t>(i);
      const double uniform = static_cast<double>(uniform_at(key, at));
      if (input.draw == Draw::kIndex) {
        const double width = static_cast<double>(input.below - input.from);
        x.data<int64_t>()[i] = input.from + static_cast<int64_t>(uniform * width);
        continue;
      }
      if (input.draw == Draw::kDistinct) {
        const int64_t place = i * stride_through(x.elements()) % x.elements();
        x.data<double>()[i] = 0.01 * static_cast<double>(place - x.elements() / 2);
        continue;
      }
      const double normal = normal_at(key, at);
      x.data<double>()[i] = input.draw == Draw::kUnit       ? 0.05 + 0.9 * uniform
                            : input.draw == Draw::kPositive ? std::abs(normal) + 0.5
                                                            : normal + std::copysign(1e-3, normal);
    }
    if (input.floating() && rounded_to != DType::kF64) {
      x = ops::cast(cx, ops::cast(cx, x, rounded_to), DType::kF64);
    }
    inputs.push_back(x);
  }
  return inputs;
}

std::vector<Tensor> in_dtype(Context& cx, const std::vector<Tensor>& inputs, DType dtype) {
  std::vector<Tensor> cast;
  for (const Tensor& x : inputs) {
    cast.push_back(is_floating(x.dtype()) ? ops::cast(cx, x.detach(), dtype) : x);
  }
  return cast;
}

Tensor lay_out(Context& cx, const Tensor& values, Layout layout) {
  if (layout == Layout::kContiguous) return values.detach();
  if (layout == Layout::kExpanded) return lay_out_expanded(values);
  if (layout == Layout::kFar) return lay_out_far(cx, values);
  const bool sliced = layout == Layout::kSliced, strided = layout == Layout::kStrided;
  const Placement placement =
      place(values.shape(), layout == Layout::kTransposed, strided ? 2 : 1, sliced ? 1 : 0);
  const double around =
      is_floating(values.dtype()) ? std::numeric_limits<double>::quiet_NaN() : 0x1p40;
  const Tensor storage =
      Tensor::full(cx.allocator, Shape{placement.elements}, around, values.dtype());
  const Tensor view = storage.view(values.shape(), placement.strides, placement.offset);
  copy_into(cx.pool, values, view);
  return view;
}

std::vector<Tensor> expanded_values(Context& cx, const Case& item,
                                    const std::vector<Tensor>& inputs) {
  std::vector<Tensor> expanded;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool given = item.inputs[i].draw == Draw::kGiven;
    expanded.push_back(given ? inputs[i] : clone(cx.pool, lay_out_expanded(inputs[i])));
  }
  return expanded;
}

Tensor cotangent(Context& cx, const Tensor& output, size_t number) {
  const auto count = static_cast<size_t>(output.elements());
  const std::span<const double> weights(weights_of(number, count).data(), count);
  return ops::cast(cx, Tensor::from<double>(cx.allocator, output.shape(), weights), output.dtype());
}

Outcome run(const Bench& bench, const Case& item, Function f, std::vector<Tensor> inputs) {
  Tape tape;
  Context cx = bench.context;
  if (item.attributes.has("block_count")) {
    cx.block_count = static_cast<int>(item.attributes.integer("block_count"));
  }
  Context recording = cx;
  recording.tape = &tape;
  for (size_t i = 0; i < inputs.size(); ++i) {
    inputs[i].set_requires_grad(item.inputs[i].floating() && item.inputs[i].gradient);
  }
  Outcome outcome{f(recording, inputs, item.attributes), {}};
  std::vector<std::pair<Tensor, Tensor>> seeded;  // outputs with a gradient, and their weights
  size_t number = 0;
  for (const Tensor& output : outcome.outputs) {
    if (!is_floating(output.dtype())) continue;
    if (output.requires_grad()) seeded.emplace_back(output, cotangent(cx, output, number));
    ++number;
  }
  if (seeded.size() == 1) {
    tape.backward(cx, seeded[0].first, seeded[0].second);
  } else if (!seeded.empty()) {
    Tensor total;
    for (const auto& [output, weights] : seeded) {
      const Tensor part = ops::sum_all(recording, ops::multiply(recording, output, weights));
      total = total ? ops::add(recording, total, part) : part;
    }
    tape.backward(cx, total);
  }
  for (const Tensor& input : inputs) {
    outcome.gradients.push_back(input.grad());
    input.set_grad(Tensor());
  }
  return outcome;
}

double weighted(const Bench& bench, const Case& item, Function f, std::span<const Tensor> inputs) {
  Context cx = bench.context;
  if (item.attributes.has("block_count")) {
    cx.block_count = static_cast<int>(item.attributes.integer("block_count"));
  }
  double total = 0;
  size_t number = 0;
  for (const Tensor& output : f(cx, inputs, item.attributes)) {
    if (!is_floating(output.dtype())) continue;
    const std::vector<double> values = output.to_vector<double>();
    const std::vector<double>& weights = weights_of(number, values.size());
    for (size_t i = 0; i < values.size(); ++i) total += values[i] * weights[i];
    ++number;
  }
  return total;
}

std::vector<double> values_of(Context& cx, const Tensor& x) {
  return ops::cast(cx, x.detach(), DType::kF64).to_vector<double>();
}

double largest_of(const std::vector<double>& values) {
  double largest = 0;
  for (const double value : values) {
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  }
  return largest;
}

double difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    const double gap = std::abs(a[i] - b[i]);
    largest = std::isnan(gap) ? std::numeric_limits<double>::infinity() : std::max(largest, gap);
  }
  return largest;
}

}  // namespace weft::op_table
