// Kernels that work on single elements, against the CPU ops; and the list of all cases.
#include <limits>

#include "kernels/cuda/launch.h"
#include "tests/kernels/cuda/comparison.h"

namespace weft::cuda {
namespace {

const std::vector<int64_t> kCounts{0, 1, 31, 257, 1000};

std::vector<double> in_order(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

struct BinaryShape {
  Shape a, b;
  bool turned;        // a's dims are permuted in memory
  int64_t start = 0;  // of b's elements behind an aligned address
};

Tensor apply(Context& cx, Binary kind, const Tensor& a, const Tensor& b) {
  switch (kind) {
    case Binary::kAdd:
      return ops::add(cx, a, b);
    case Binary::kSubtract:
      return ops::subtract(cx, a, b);
    case Binary::kMultiply:
      return ops::multiply(cx, a, b);
    case Binary::kDivide:
      break;
  }
  return ops::divide(cx, a, b);
}

std::vector<int64_t> extents_of(const Shape& shape) {
  return {shape.extents().begin(), shape.extents().end()};
}
// Row-major strides of `shape` seen as `out`: 0 where it is broadcast.
std::vector<int64_t> strides_in(const Shape& shape, const Shape& out) {
  std::vector<int64_t> strides(static_cast<size_t>(out.dims()), 0);
  int64_t stride = 1;
  for (int dim = shape.dims() - 1; dim >= 0; --dim) {
    const int at = dim + out.dims() - shape.dims();
    if (shape[dim] > 1) strides[static_cast<size_t>(at)] = stride;
    stride *= shape[dim];
  }
  return strides;
}

template <typename T>
std::string check_binary_of(const BinaryShape& shapes, const TypedKernels<T>& kernels) {
  for (const Binary kind : {Binary::kAdd, Binary::kSubtract, Binary::kMultiply, Binary::kDivide}) {
    Bench bench(1);
    DeviceMemory memory;
    const std::vector<float> left = rounded<T>(random_values(shapes.a.elements(), 21));
    const std::vector<float> right = rounded<T>(random_values(shapes.b.elements(), 22, 1, 4));
    Tensor x = in_double(bench, shapes.a, left);
    const Tensor y = in_double(bench, shapes.b, right);
    std::vector<int64_t> strides_a(x.strides().begin(), x.strides().end());
    if (shapes.turned) {
      x = ops::permute(bench.context, x, std::array{1, 0});
      strides_a = {x.strides()[0], x.strides()[1]};
    }
    const Tensor expected = apply(bench.context, kind, x, y);
    const Shape& out_shape = expected.shape();
    if (!shapes.turned) strides_a = strides_in(shapes.a, out_shape);
    const std::vector<int64_t> strides_b = strides_in(shapes.b, out_shape);
    const std::vector<int64_t> strides_out = strides_in(out_shape, out_shape);
    Walk<3> walk;
    if (!make_walk<3>(extents_of(out_shape), {strides_a, strides_b, strides_out}, walk)) {
      return "no walk over " + out_shape.to_string();
    }
    T* out = memory.output<T>(out_shape.elements());
    kernels.binary(kind, walk, memory.input(as<T>(left)),
                   input_behind<T>(memory, right, shapes.start), out, nullptr);
    const std::string finding = first_of({differs("binary of " + out_shape.to_string(), out,
                                                  expected.to_vector<double>(), near<T>(1e-7)),
                                          memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_binary(const KernelSet& set) {
  std::vector<BinaryShape> shapes;
  for (const int64_t n : kCounts) shapes.push_back({{n}, {n}, false});
  // More vectors than the grid takes at once, and some elements behind them.
  const int64_t many = kBlocksMax * kThreads * 16 + 77;
  shapes.push_back({{many}, {many}, false});
  shapes.push_back({{1001}, {1001}, false, 1});
  shapes.push_back({{3, 7, 16}, {16}, false});
  shapes.push_back({{3, 7, 16}, {16}, false, 3});
  shapes.push_back({{5, 24}, {5, 1}, false, 1});
  shapes.push_back({{1}, {77}, false});
  shapes.push_back({{3, 5, 7}, {7}, false});
  shapes.push_back({{4, 1, 3}, {1, 5, 1}, false});
  shapes.push_back({{}, {2, 3}, false});
  shapes.push_back({{5, 9}, {9, 5}, true});
  return of_types([&]<typename T>() {
    for (const BinaryShape& each : shapes) {
      const std::string finding = check_binary_of(each, set.typed<T>());
      if (!finding.empty()) return finding;
    }
    return std::string();
  });
}

// A window of a permuted array, into the middle of another; and casts.
template <typename T>
std::string check_copy_of(const TypedKernels<T>& kernels) {
  constexpr int64_t kRows = 5, kWidth = 9;
  Bench bench(1);
  DeviceMemory memory;
  const std::vector<float> values = random_values(kRows * kWidth, 23);
  const Tensor x = in_double(bench, {kRows, kWidth}, rounded<T>(values));
  const Tensor turned = ops::permute(bench.context, ops::slice(bench.context, x, 1, 2, 6),
                                     std::array{1, 0});  // [6, 5]
  std::vector<T> target(8 * 5, T(7.0F));
  T* to = memory.in_out(target);
  Walk<2> walk;
  const std::vector<int64_t> extents{6, 5}, from_strides{1, kWidth}, to_strides{5, 1};
  if (!make_walk<2>(extents, {from_strides, to_strides}, walk)) return "no walk";
  kernels.copy(walk, memory.input(as<T>(values)) + 2, to + 5, nullptr);
  const Tensor sevens = Tensor::full(*bench.allocator, Shape{1, 5}, 7, DType::kF64);
  const std::vector<Tensor> parts{sevens, turned, sevens};
  const Tensor expected = ops::concat(bench.context, parts, 0);

  float* wide = memory.output<float>(kRows * kWidth);
  T* narrow = memory.output<T>(kRows * kWidth);
  const std::vector<int64_t> flat{kRows * kWidth}, one{1};
  if (!make_walk<2>(flat, {one, one}, walk)) return "no walk";
  kernels.copy_to_float(walk, memory.input(as<T>(values)), wide, nullptr);
  kernels.copy_from_float(walk, memory.input(values), narrow, nullptr);
  float* doubled = memory.output<float>(kRows * kWidth);
  T* scaled = memory.output<T>(kRows * kWidth);
  kernels.scale(memory.input(as<T>(values)), 2, scaled, kRows * kWidth, nullptr);
  kernels.copy_to_float(walk, scaled, doubled, nullptr);
  kernels.add(walk, scaled, scaled, nullptr);
  kernels.add_to_float(walk, scaled, doubled, nullptr);
  T* filled = memory.output<T>(33);
  kernels.fill(T(1.5F), filled, 33, nullptr);
  return first_of({differs("a window", to, expected.to_vector<double>(), 0),
                   differs("widened", wide, x.to_vector<double>(), 0),
                   differs("narrowed", narrow, x.to_vector<double>(), 0),
                   differs("doubled, doubled again and added", doubled,
                           ops::scale(bench.context, x, 6).to_vector<double>(), 1e-7),
                   differs("filled", filled, std::vector<double>(33, 1.5), 0), memory.violation()});
}

// Elements that are walked over in another order, from and to addresses of all kinds.
struct Moved {
  std::vector<int64_t> extents, from, to;  // strides
  int64_t from_start = 0, to_start = 0;
};
std::vector<Moved> moves() {
  return {{{2, 3, 5, 16}, {240, 16, 48, 1}, {240, 80, 16, 1}},  // heads before tokens
          {{2, 5, 3, 16}, {240, 16, 80, 1}, {240, 48, 16, 1}},  // and back
          {{2, 3, 5, 16}, {480, 32, 96, 1}, {240, 80, 16, 1}, 16},
          {{2, 3, 5, 16}, {480, 32, 96, 1}, {240, 80, 16, 1}, 17},
          {{2, 3, 5, 16}, {480, 32, 96, 1}, {240, 80, 16, 1}, 16, 3},
          {{4, 16}, {18, 1}, {16, 1}},
          {{6, 7}, {8, 1}, {16, 1}},
          {{3, 4, 7}, {64, 16, 1}, {28, 7, 1}},
          {{4, 24}, {1, 0}, {24, 1}},
          {{4, 24}, {0, 1}, {24, 1}},
          {{40}, {-1}, {1}, 39},
          {{7, 5, 3}, {1, 7, 35}, {15, 3, 1}},
          {{2, 70000}, {70000, 1}, {70016, 1}}};  // more than one launch takes
}

template <typename T>
std::string check_moves(const TypedKernels<T>& kernels) {
  for (const Moved& move : moves()) {
    Walk<2> walk;
    if (!make_walk<2>(move.extents, {move.from, move.to}, walk)) return "no walk";
    int64_t from_last = move.from_start, to_last = move.to_start;
    for (size_t dim = 0; dim < move.extents.size(); ++dim) {
      from_last += std::max<int64_t>(0, (move.extents[dim] - 1) * move.from[dim]);
      to_last += (move.extents[dim] - 1) * move.to[dim];
    }
    DeviceMemory memory;
    const std::vector<float> source = rounded<T>(random_values(from_last + 1, 61));
    const std::vector<float> before = rounded<T>(random_values(to_last + 1, 62));
    const T* from = memory.input(as<T>(source)) + move.from_start;
    T *to = memory.in_out(as<T>(before)), *sum = memory.in_out(as<T>(before));
    kernels.copy(walk, from, to + move.to_start, nullptr);
    kernels.add(walk, from, sum + move.to_start, nullptr);
    std::vector<double> copied(before.begin(), before.end()), added = copied;
    for (int64_t i = 0; i < walk.elements; ++i) {
      int64_t rest = i, at = move.from_start, target = move.to_start;
      for (size_t dim = move.extents.size(); dim-- > 0; rest /= move.extents[dim]) {
        at += rest % move.extents[dim] * move.from[dim];
        target += rest % move.extents[dim] * move.to[dim];
      }
      const float value = source[static_cast<size_t>(at)];
      copied[static_cast<size_t>(target)] = static_cast<double>(value);
      added[static_cast<size_t>(target)] =
          static_cast<double>(static_cast<float>(T(before[static_cast<size_t>(target)] + value)));
    }
    const std::string finding = first_of(
        {differs("moved", to, copied, 0), differs("added", sum, added, 0), memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}
std::string check_copy(const KernelSet& set) {
  return of_types([&]<typename T>() {
    return first_of({check_copy_of(set.typed<T>()), check_moves(set.typed<T>())});
  });
}

template <typename T>
std::string check_curve_of(Curve kind, const TypedKernels<T>& kernels) {
  for (const RowShape& shape : row_shapes()) {
    Bench bench(1);
    DeviceMemory memory;
    const int64_t n = shape.rows * shape.width;
    std::vector<float> values = rounded<T>(random_values(n, 25, 3));
    if (n > 0) values.back() = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> biases = rounded<T>(random_values(shape.width, 24));
    const std::vector<float> slopes = rounded<T>(random_values(n, 26));
    const T *x = memory.input(as<T>(values)), *bias = memory.input(as<T>(biases));
    T *y = memory.output<T>(n), *plain = memory.output<T>(n), *dx = memory.output<T>(n);
    kernels.curve(kind, x, bias, y, shape.rows, shape.width, nullptr);
    kernels.curve(kind, x, nullptr, plain, shape.rows, shape.width, nullptr);
    kernels.curve_backward(kind, x, bias, memory.input(as<T>(slopes)), dx, shape.rows, shape.width,
                           nullptr);
    const testing::Function op = [kind](Context& cx, std::span<const Tensor> in) {
      const Tensor sum = in.size() == 2 ? ops::add(cx, in[0], in[1]) : in[0];
      if (kind == Curve::kIdentity) return ops::scale(cx, sum, 1);
      return ops::activate(cx, sum, static_cast<ops::Activation>(kind));
    };
    const std::vector<Tensor> both{in_double(bench, {shape.rows, shape.width}, values),
                                   in_double(bench, {shape.width}, biases)};
    const auto gradients =
        gradients_of(bench, op, both, in_double(bench, {shape.rows, shape.width}, slopes));
    const std::vector<Tensor> one{both[0]};
    const std::string what = "curve " + std::to_string(static_cast<int>(kind));
    const std::string finding =
        first_of({differs(what, y, op(bench.context, both).to_vector<double>(), near<T>(1e-6)),
                  differs(what + " without bias", plain, op(bench.context, one).to_vector<double>(),
                          near<T>(1e-6)),
                  differs(what + "'", dx, gradients[0], near<T>(4e-6)), memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}
std::string check_curves(const KernelSet& set) {
  for (int kind = 0; kind <= static_cast<int>(Curve::kIdentity); ++kind) {
    const std::string finding = of_types(
        [&]<typename T>() { return check_curve_of(static_cast<Curve>(kind), set.typed<T>()); });
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_swiglu(const KernelSet& set) {
  return of_types([&]<typename T>() {
    constexpr int64_t kCount = 257;
    Bench bench(1);
    DeviceMemory memory;
    const std::vector<float> gates = rounded<T>(random_values(kCount, 35, 3));
    const std::vector<float> ups = rounded<T>(random_values(kCount, 36));
    const std::vector<float> slopes = rounded<T>(random_values(kCount, 37));
    const T *gate = memory.input(as<T>(gates)), *up = memory.input(as<T>(ups));
    T *y = memory.output<T>(kCount), *dgate = memory.output<T>(kCount);
    T *all = memory.output<T>(kCount + 1), *dup = all + 1;  // of no aligned address
    set.typed<T>().swiglu(gate, up, y, kCount, nullptr);
    set.typed<T>().swiglu_backward(gate, up, memory.input(as<T>(slopes)), dgate, dup, kCount,
                                   nullptr);
    const testing::Function op = [](Context& cx, std::span<const Tensor> in) {
      return ops::multiply(cx, ops::activate(cx, in[0], ops::Activation::kSilu), in[1]);
    };
    const std::vector<Tensor> inputs{in_double(bench, {kCount}, gates),
                                     in_double(bench, {kCount}, ups)};
    const auto gradients = gradients_of(bench, op, inputs, in_double(bench, {kCount}, slopes));
    return first_of(
        {differs("swiglu", y, op(bench.context, inputs).to_vector<double>(), near<T>(2e-6)),
         differs("dgate", dgate, gradients[0], near<T>(4e-6)),
         differs("dup", dup, gradients[1], near<T>(4e-6)), memory.violation()});
  });
}

// Two samples, whose angles are their own.
template <typename T>
std::string check_rope_of(bool interleaved, bool backwards, const TypedKernels<T>& kernels) {
  constexpr int64_t kSamples = 2, kHeads = 3, kTokens = 5, kWidth = 10, kPairs = 4;
  constexpr int64_t kRows = kSamples * kHeads * kTokens, kAngles = kSamples * kTokens * kPairs;
  DeviceMemory memory;
  const std::vector<float> values = rounded<T>(random_values(kRows * kWidth, 38));
  const std::vector<int64_t> positions{0, 1, 7, 100, 4095, 3, 2, 1, 0, 65536};
  const std::vector<double> frequencies{1.0, 0.1, 0.01, 0.001};
  T *cosines = memory.output<T>(kAngles), *sines = memory.output<T>(kAngles);
  kernels.rotary_angles(memory.input(positions), memory.input(frequencies), kSamples * kTokens,
                        kPairs, cosines, sines, nullptr);
  std::vector<double> want_cosines, want_sines;
  for (size_t i = 0; i < kAngles; ++i) {
    const double angle = static_cast<double>(positions[i / kPairs]) * frequencies[i % kPairs];
    want_cosines.push_back(std::cos(angle));
    want_sines.push_back(std::sin(angle));
  }
  T* y = memory.output<T>(kRows * kWidth);
  const RotaryShape shape{kRows, kTokens, kHeads * kTokens, kWidth, kPairs, interleaved, backwards};
  kernels.rotary(shape, memory.input(as<T>(values)), cosines, sines, y, nullptr);
  std::vector<double> expected(values.begin(), values.end());
  for (size_t row = 0; row < kRows; ++row) {
    for (size_t pair = 0; pair < kPairs; ++pair) {
      const size_t token = row / (kHeads * kTokens) * kTokens + row % kTokens;
      const double c = static_cast<double>(static_cast<float>(cosines[token * kPairs + pair]));
      const double turn = static_cast<double>(static_cast<float>(sines[token * kPairs + pair]));
      const double s = backwards ? -turn : turn;
      const size_t a = row * kWidth + (interleaved ? 2 * pair : pair);
      const size_t b = interleaved ? a + 1 : a + kPairs;
      const double left = expected[a], right = expected[b];
      expected[a] = left * c - right * s;
      expected[b] = right * c + left * s;
    }
  }
  return first_of({differs("cosines", cosines, want_cosines, near<T>(1e-7)),
                   differs("sines", sines, want_sines, near<T>(1e-7)),
                   differs("rotary", y, expected, near<T>(1e-6)), memory.violation()});
}
std::string check_rope(const KernelSet& set) {
  return of_types([&]<typename T>() {
    return first_of({check_rope_of(false, false, set.typed<T>()),
                     check_rope_of(true, false, set.typed<T>()),
                     check_rope_of(false, true, set.typed<T>())});
  });
}

// A shard of a vocabulary: ids before it, behind it, twice the same, and the padding row.
struct Lookup {
  static constexpr int64_t kFirst = 10, kRows = 7, kPadding = 12;
  std::vector<int64_t> ids{10, 16, 9, 17, 12, 13, 13, -1, 13, 0, 11, 100, 16, 13, 16, 10};
  int64_t count() const { return static_cast<int64_t>(ids.size()); }
};

template <typename T>
std::string check_embedding_of(const TypedKernels<T>& kernels) {
  const Lookup lookup;
  for (const int64_t width : {1, 33, 100}) {
    Bench bench(1);
    DeviceMemory memory;
    const std::vector<float> rows = rounded<T>(random_values(Lookup::kRows * width, 27));
    T* out = memory.output<T>(lookup.count() * width);
    kernels.embedding(memory.input(lookup.ids), memory.input(as<T>(rows)), Lookup::kFirst,
                      Lookup::kRows, lookup.count(), width, out, nullptr);
    const Tensor ids = testing::ids(bench.context, {lookup.count()}, lookup.ids);
    const Tensor table = Tensor::from<float>(*bench.allocator, {Lookup::kRows, width}, rows);
    const Tensor expected = ops::embedding(bench.context, ids, table, Lookup::kFirst);
    const std::string finding = first_of(
        {differs("rows", out, in_order(expected.to_vector<float>()), 0), memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_embedding(const KernelSet& set) {
  return of_types([&]<typename T>() { return check_embedding_of(set.typed<T>()); });
}

// The CPU's, in fp32 and the tree of so many blocks of the ids; slopes: rows of these.
std::vector<double> table_gradient(const Lookup& lookup, int64_t padding, int blocks,
                                   const std::vector<float>& slopes) {
  Bench bench(1);
  const int64_t width = static_cast<int64_t>(slopes.size()) / lookup.count();
  Tensor table = Tensor::zeros(*bench.allocator, {Lookup::kRows, width});
  table.set_requires_grad(true);
  Tape tape;
  Context recording = bench.context;
  recording.tape = &tape;
  recording.block_count = blocks;
  const Tensor ids = testing::ids(bench.context, {lookup.count()}, lookup.ids);
  tape.backward(recording, ops::embedding(recording, ids, table, Lookup::kFirst, padding),
                Tensor::from<float>(*bench.allocator, {lookup.count(), width}, slopes));
  return in_order(table.grad().to_vector<float>());
}

// Of ids that are brought together, in their order: the same bits as if they were added one after
// the other; in blocks, the CPU's.
template <typename T>
std::string check_embedding_backward_of(const TypedKernels<T>& kernels, const KernelSet& set) {
  Lookup lookup;
  for (int i = 0; i < 19; ++i) lookup.ids.push_back(i % 7 == 3 ? Lookup::kPadding : 15);
  const int64_t count = lookup.count(), tokens = Lookup::kRows;
  for (const int64_t width : {1, 33, 100, 32}) {
    for (const int64_t padding : {int64_t{-1}, Lookup::kPadding}) {
      DeviceMemory memory;
      const std::vector<float> slopes = rounded<T>(random_values(count * width, 28));
      std::vector<float> sums(static_cast<size_t>(tokens * width));
      for (int64_t i = 0; i < count * width; ++i) {
        const int64_t id = lookup.ids[static_cast<size_t>(i / width)], row = id - Lookup::kFirst;
        if (row < 0 || row >= tokens || id == padding) continue;
        sums[static_cast<size_t>(row * width + i % width)] += slopes[static_cast<size_t>(i)];
      }
      const std::vector<double> expected(sums.begin(), sums.end());
      const int64_t* ids = memory.input(lookup.ids);
      const T* dy = memory.input(as<T>(slopes));
      const auto numbers = [&](int64_t n) { return memory.output<int64_t>(n); };
      int64_t *sorted = numbers(count), *order = numbers(count), *start = numbers(tokens + 1);
      set.sort_numbers(ids, 1, count, false, sorted, order, numbers(count), numbers(count),
                       nullptr);
      set.segment_starts(sorted, count, Lookup::kFirst, tokens, start, {}, nullptr);
      const auto in_blocks = [&](int blocks) {
        float* table = memory.output<float>(tokens * width);
        kernels.embedding_backward({start, order, tokens, count}, dy,
                                   padding < 0 ? -1 : padding - Lookup::kFirst, width, blocks,
                                   table, nullptr);
        return table;
      };
      const std::string finding = first_of(
          {differs("in order", in_blocks(1), expected, 0),
           differs("in 4 blocks", in_blocks(4), table_gradient(lookup, padding, 4, slopes), 0),
           differs("in 16 blocks", in_blocks(16), table_gradient(lookup, padding, 16, slopes), 0),
           memory.violation()});
      if (!finding.empty()) return finding;
    }
  }
  return "";
}
std::string check_embedding_backward(const KernelSet& set) {
  return of_types([&]<typename T>() { return check_embedding_backward_of(set.typed<T>(), set); });
}

template <typename T>
std::string check_gather_of(const TypedKernels<T>& kernels) {
  constexpr int64_t kGroups = 5, kTokens = 4;
  const std::vector<int64_t> index{0, 3, -1, 2, 3};
  for (const int64_t width : {1, 33, 100}) {
    Bench bench(1);
    DeviceMemory memory;
    const std::vector<float> values = rounded<T>(random_values(kGroups * kTokens * width, 30));
    const std::vector<float> slopes = rounded<T>(random_values(kGroups * width, 31));
    T *out = memory.output<T>(kGroups * width), *dx = memory.output<T>(kGroups * kTokens * width);
    const int64_t* numbers = memory.input(index);
    Note* note = memory.in_out(std::vector<Note>(1));
    const Outside outside{note, ops::Numbers::kGatherRows};
    const T* x = memory.input(as<T>(values));
    kernels.gather_rows(x, numbers, out, kGroups, kTokens, width, outside, nullptr);
    if (note->taken != 0) return "a number that is meant was noted";
    const std::vector<int64_t> beyond{0, kTokens, -1, 2, 3};
    kernels.gather_rows(x, memory.input(beyond), memory.output<T>(kGroups * width), kGroups,
                        kTokens, width, outside, nullptr);
    if (const auto finding = noted(*note, outside.numbers, kTokens, {kTokens}); !finding.empty()) {
      return finding;
    }
    kernels.gather_rows_backward(memory.input(as<T>(slopes)), numbers, dx, kGroups, kTokens, width,
                                 nullptr);
    const auto op = [](Context& cx, std::span<const Tensor> in) {
      return ops::gather_rows(cx, in[0], in[1]);
    };
    const std::vector<Tensor> inputs{in_double(bench, {kGroups, kTokens, width}, values),
                                     testing::ids(bench.context, {kGroups}, index)};
    const auto gradients =
        gradients_of(bench, op, inputs, in_double(bench, {kGroups, width}, slopes));
    const std::string finding =
        first_of({differs("rows", out, op(bench.context, inputs).template to_vector<double>(), 0),
                  differs("dx", dx, gradients[0], 0), memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}
std::string check_gather(const KernelSet& set) {
  return of_types([&]<typename T>() { return check_gather_of(set.typed<T>()); });
}

struct Shard {
  std::vector<int64_t> extent, global, offset;
};

template <typename T>
std::string check_dropout_of(const TypedKernels<T>& kernels) {
  const RandomKey key{.seed = 0x123456789ABCDEF0, .stream = 0xFEDCBA987654321};
  const std::vector<Shard> shards{{{1000}, {1000}, {0}},
                                  {{257}, {70000}, {4099}},
                                  {{3, 5, 7}, {6, 9, 7}, {2, 4, 0}},
                                  {{2, 0}, {2, 4}, {0, 1}},
                                  {{2, 2, 33}, {2, 5, 50}, {0, 3, 11}}};
  int border = 65535;  // the first element just stays
  while (!kept_at(key, 0, border)) --border;
  for (const Shard& shard : shards) {
    for (const double rate : {0.0, 0.1, 0.75, border / 65536.0}) {
      Bench bench(1);
      DeviceMemory memory;
      Shape shape, global;
      for (const int64_t extent : shard.extent) shape.push_back(extent);
      for (const int64_t extent : shard.global) global.push_back(extent);
      const std::vector<float> values = rounded<T>(random_values(shape.elements(), 30));
      T* y = memory.output<T>(shape.elements());
      // Of one dim the seed is in device memory.
      const DeviceKey there({.seed = 1, .stream = key.stream},
                            memory.input(std::vector<uint64_t>{key.seed}));
      kernels.dropout(memory.input(as<T>(values)), shard.extent, shard.global, shard.offset, rate,
                      shard.extent.size() == 1 ? there : DeviceKey(key), y, nullptr);
      const Tensor x = Tensor::from<float>(*bench.allocator, shape, values);
      const Tensor expected = ops::dropout(bench.context, x, rate, key, {global, shard.offset});
      const std::string finding =
          first_of({differs("dropout of " + shape.to_string(), y,
                            in_order(rounded<T>(expected.to_vector<float>())), 0),
                    memory.violation()});
      if (!finding.empty()) return finding;
    }
  }
  return "";
}

std::string check_dropout(const KernelSet& set) {
  return of_types([&]<typename T>() { return check_dropout_of(set.typed<T>()); });
}

}  // namespace

const std::vector<Case>& cases() {
  static const std::vector<Case> all{{"binary", check_binary},
                                     {"copy", check_copy},
                                     {"far", check_far},
                                     {"curves", check_curves},
                                     {"functions", check_functions},
                                     {"selection", check_selection},
                                     {"swiglu", check_swiglu},
                                     {"rope", check_rope},
                                     {"embedding", check_embedding},
                                     {"embedding_backward", check_embedding_backward},
                                     {"gather", check_gather},
                                     {"adamw", check_adamw},
                                     {"dropout", check_dropout},
                                     {"norm", check_norm},
                                     {"norm_backward", check_norm_backward},
                                     {"softmax", check_softmax},
                                     {"softmax_backward", check_softmax_backward},
                                     {"cross_entropy", check_cross_entropy},
                                     {"sums", check_sums},
                                     {"columns", check_columns},
                                     {"pooling", check_pooling},
                                     {"recurrent", check_recurrent},
                                     {"log_softmax", check_log_softmax},
                                     {"lines", check_lines},
                                     {"sort", check_sort},
                                     {"numbers", check_numbers},
                                     {"segments", check_segments},
                                     {"channel_norm", check_channel_norm},
                                     {"ctc", check_ctc},
                                     {"compared", check_compared},
                                     {"relative", check_relative},
                                     {"draw", check_draw},
                                     {"attention_plain", check_attention_plain},
                                     {"attention_widths", check_attention_widths},
                                     {"attention_rules", check_attention_rules},
                                     {"attention_tables", check_attention_tables},
                                     {"attention_distances", check_attention_distances},
                                     {"attention_sm90", check_attention_sm90},
                                     {"attention_merge", check_attention_merge},
                                     {"exact_squares", check_exact_squares}};
  return all;
}

}  // namespace weft::cuda
