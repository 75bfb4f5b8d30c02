// Kernels along a dim, by number and over segments, against the CPU ops in float64.
#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "kernels/ops/common.h"
#include "kernels/ops/indexing.h"
#include "kernels/ops/norms.h"
#include "kernels/ops/reductions.h"
#include "kernels/ops/segments.h"
#include "tests/kernels/cuda/comparison.h"

namespace weft::cuda {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Says where the numbers differ, or nothing.
std::string differ(const std::string& what, const int64_t* actual, std::span<const int64_t> want) {
  for (size_t i = 0; i < want.size(); ++i) {
    if (actual[i] == want[i]) continue;
    return what + ": number " + std::to_string(i) + " is " + std::to_string(actual[i]) + ", not " +
           std::to_string(want[i]);
  }
  return "";
}

std::vector<int64_t> numbers_below(int64_t n, int64_t bound, uint64_t seed) {
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < n; ++i) {
    const double uniform = static_cast<double>(uniform_at({seed, 5}, static_cast<uint64_t>(i)));
    numbers.push_back(static_cast<int64_t>(uniform * static_cast<double>(bound)));
  }
  return numbers;
}

// Of few values, so that many are equal.
std::vector<float> tied_values(int64_t n, uint64_t seed) {
  std::vector<float> values;
  for (const int64_t number : numbers_below(n, 7, seed)) {
    values.push_back(static_cast<float>(number) - 3.0F);
  }
  return values;
}

struct Lines {
  int64_t outer, extent, inner;
  Shape shape() const { return {outer, extent, inner}; }
};
std::vector<Lines> line_cases() {
  return {{1, 1, 1},   {2, 5, 3},   {0, 4, 2},    {3, 130, 1},
          {2, 300, 3}, {40, 3, 90}, {5, 1025, 1}, {1, 7, 0}};
}

template <typename T>
std::string check_extremes_of(const Lines& lines, bool larger, const TypedKernels<T>& kernels) {
  Bench bench(1);
  DeviceMemory memory;
  const int64_t n = lines.outer * lines.inner;
  std::vector<float> values = tied_values(n * lines.extent, 61);
  for (size_t i = 0; i < values.size(); i += 97) values[i] = kNan;
  T* found = memory.output<T>(n);
  int64_t* places = memory.output<int64_t>(n);
  kernels.extreme_along(larger, memory.input(as<T>(values)), lines.outer, lines.extent, lines.inner,
                        found, places, nullptr);
  const Tensor x = in_double(bench, lines.shape(), values);
  const ops::Extremes want = larger ? ops::max(bench.context, x, 1) : ops::min(bench.context, x, 1);
  const std::vector<double> expected = want.values.to_vector<double>();
  for (size_t i = 0; i < expected.size(); ++i) {
    const double got = static_cast<double>(static_cast<float>(found[i]));
    if (got == expected[i] || (std::isnan(got) && std::isnan(expected[i]))) continue;
    return "extreme " + std::to_string(i) + " of " + x.shape().to_string();
  }
  return first_of(
      {differ("places in " + x.shape().to_string(), places, want.indices.to_vector<int64_t>()),
       memory.violation()});
}

template <typename T>
std::string check_running_sums_of(const Lines& lines, bool reversed,
                                  const TypedKernels<T>& kernels) {
  Bench bench(1);
  DeviceMemory memory;
  const std::vector<float> values = rounded<T>(random_values(lines.shape().elements(), 62));
  T* y = memory.output<T>(lines.shape().elements());
  kernels.cumulative_sum(memory.input(as<T>(values)), y, lines.outer, lines.extent, lines.inner,
                         reversed, nullptr);
  const Tensor expected =
      ops::cumulative_sum(bench.context, in_double(bench, lines.shape(), values), 1, reversed);
  size_t i = 0;
  for (const double sum : expected.to_vector<double>()) {
    if (static_cast<float>(y[i]) != static_cast<float>(T(static_cast<float>(sum)))) {
      return "running sum " + std::to_string(i) + " of " + lines.shape().to_string() +
             " is not the one in double, rounded";
    }
    ++i;
  }
  return memory.violation();
}

std::vector<RowShape> sort_cases() {
  return {{0, 4}, {2, 0}, {1, 1}, {3, 5}, {2, 16}, {30, 2}, {2, 17}, {3, 33}, {1, 257}};
}

template <typename T>
std::string check_sort_of(const RowShape& shape, bool descending, const TypedKernels<T>& kernels) {
  Bench bench(1);
  DeviceMemory memory;
  const int64_t n = shape.rows * shape.width;
  std::vector<float> values = tied_values(n, 63);
  for (size_t i = 1; i < values.size(); i += 6) values[i] = kNan;
  T *sorted = memory.output<T>(n), *other = memory.output<T>(n);
  int64_t *places = memory.output<int64_t>(n), *other_places = memory.output<int64_t>(n);
  kernels.sort_rows(memory.input(as<T>(values)), shape.rows, shape.width, descending, sorted,
                    places, other, other_places, nullptr);
  const Tensor x = in_double(bench, {shape.rows, shape.width}, values);
  const std::vector<int64_t> want =
      ops::argsort(bench.context, x, 1, descending).to_vector<int64_t>();
  const std::string finding = differ("order of " + x.shape().to_string(), places, want);
  if (!finding.empty()) return finding;
  for (int64_t i = 0; i < n; ++i) {
    const T own = T(values[static_cast<size_t>(i / shape.width * shape.width + places[i])]);
    if (std::memcmp(&own, sorted + i, sizeof(T)) != 0) return "a value at another's place";
  }
  return memory.violation();
}

std::string check_sort_of_numbers(const KernelSet& set) {
  DeviceMemory memory;
  constexpr int64_t kCount = 100;
  const std::vector<int64_t> numbers = numbers_below(kCount, 9, 64);
  int64_t *sorted = memory.output<int64_t>(kCount), *places = memory.output<int64_t>(kCount);
  int64_t *other = memory.output<int64_t>(kCount), *other_places = memory.output<int64_t>(kCount);
  set.sort_numbers(memory.input(numbers), 1, kCount, false, sorted, places, other, other_places,
                   nullptr);
  std::vector<int64_t> want(kCount), order(kCount);
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](int64_t i) { return numbers[static_cast<size_t>(i)]; });
  for (size_t i = 0; i < order.size(); ++i) want[i] = numbers[static_cast<size_t>(order[i])];
  return first_of({differ("sorted numbers", sorted, want), differ("their order", places, order),
                   memory.violation()});
}

// x [3, 5, 7] at an index along each dim.
constexpr int64_t kExtents[] = {3, 5, 7};

struct Numbered {
  Shape index;
  Walk<3> in_order;  // over index, x, a tensor of the index's shape
  Walk<3> x_last;    // over index, such a tensor, x
  NumberedDim dim;
};
Numbered numbered(int along, int64_t extent) {
  Numbered by{{2, 4, 6}, {}, {}, {kExtents[along], 1, {}}};
  by.index[along] = extent;
  std::array<int64_t, 3> in_index{by.index[1] * by.index[2], by.index[2], 1};
  std::array<int64_t, 3> in_x{kExtents[1] * kExtents[2], kExtents[2], 1};
  by.dim.step = in_x[static_cast<size_t>(along)];
  in_x[static_cast<size_t>(along)] = 0;
  const std::span<const int64_t> index(in_index), x(in_x);
  (void)make_walk<3>(by.index.extents(), {index, x, index}, by.in_order);
  (void)make_walk<3>(by.index.extents(), {index, index, x}, by.x_last);
  return by;
}

template <typename T>
std::string check_numbers_of(int along, const KernelSet& set) {
  const TypedKernels<T>& kernels = set.typed<T>();
  Bench bench(1);
  DeviceMemory memory;
  const Shape shape{kExtents[0], kExtents[1], kExtents[2]};
  Numbered by = numbered(along, 9);
  const int64_t n = by.index.elements();
  const std::vector<float> values = rounded<T>(random_values(shape.elements(), 65));
  std::vector<int64_t> index = numbers_below(n, kExtents[along], 66);
  const Tensor expected = ops::gather(bench.context, in_double(bench, shape, values), along,
                                      Tensor::from<int64_t>(*bench.allocator, by.index, index));
  index[0] = -1;
  index.back() = kExtents[along];
  T* taken = memory.output<T>(n);
  int64_t* targets = memory.output<int64_t>(n);
  const int64_t* numbers = memory.input(index);
  Note* notes = memory.in_out(std::vector<Note>(2));
  by.dim.outside = {notes, ops::Numbers::kGather};
  kernels.take_along(by.in_order, by.dim, numbers, memory.input(as<T>(values)), taken, nullptr);
  by.dim.outside = {notes + 1, ops::Numbers::kScatterAdd};
  set.targets_along(by.in_order, by.dim, numbers, targets, nullptr);
  const std::vector<double> want = expected.to_vector<double>();
  for (int64_t i = 0; i < n; ++i) {
    const bool outside = i == 0 || i == n - 1;
    const float got = static_cast<float>(taken[i]);
    if (outside ? !std::isnan(got) || targets[i] != -1
                : static_cast<double>(got) != want[static_cast<size_t>(i)] ||
                      got != values[static_cast<size_t>(targets[i])]) {
      return "element " + std::to_string(i) + " along dim " + std::to_string(along);
    }
  }
  const int64_t end = kExtents[along];
  return first_of({noted(notes[0], ops::Numbers::kGather, end, {-1, end}),
                   noted(notes[1], ops::Numbers::kScatterAdd, end, {-1, end}), memory.violation()});
}

// Places of the index that are distinct along the dim, one of them outside.
template <typename T>
std::string check_put_of(int along, const TypedKernels<T>& kernels) {
  Bench bench(1);
  DeviceMemory memory;
  const Shape shape{kExtents[0], kExtents[1], kExtents[2]};
  const Numbered by = numbered(along, kExtents[along] - 1);
  const int64_t n = by.index.elements(), step = ops::split_at(by.index, along).inner;
  const std::vector<float> values = rounded<T>(random_values(n, 67));
  std::vector<int64_t> index;
  for (int64_t i = 0; i < n; ++i) {
    index.push_back((i / step % by.index[along] + i % step) % kExtents[along]);
  }
  std::vector<double> kept(values.begin(), values.end());
  const Tensor zeros = Tensor::zeros(*bench.allocator, shape, DType::kF64);
  kept[1] = 0;
  const Tensor expected = ops::scatter_add(bench.context, zeros, along,
                                           Tensor::from<int64_t>(*bench.allocator, by.index, index),
                                           Tensor::from<double>(*bench.allocator, by.index, kept));
  index[1] = kExtents[along];
  T* out = memory.in_out(std::vector<T>(static_cast<size_t>(shape.elements()), T(0.0F)));
  kernels.put_along(by.x_last, by.dim, memory.input(index), memory.input(as<T>(values)), out,
                    nullptr);
  return first_of(
      {differs("put along " + std::to_string(along), out, expected.to_vector<double>(), 0),
       memory.violation()});
}

std::string check_encodings(const KernelSet& set) {
  Bench bench(1);
  DeviceMemory memory;
  constexpr int64_t kCount = 61, kClasses = 5, kRows = 13, kColumns = 9;
  std::vector<int64_t> ids = numbers_below(kCount, kClasses, 68);
  const Tensor hot = ops::one_hot(
      bench.context, Tensor::from<int64_t>(*bench.allocator, Shape{kCount}, ids), kClasses);
  std::vector<double> want;
  for (const float value : hot.to_vector<float>()) want.push_back(static_cast<double>(value));
  std::fill_n(want.begin(), kClasses, 0.0);
  ids[0] = -1;
  float* out = memory.output<float>(kCount * kClasses);
  Note* note = memory.in_out(std::vector<Note>(1));
  const Outside outside{note, ops::Numbers::kOneHot};
  set.typed<float>().one_hot(memory.input(ids), kCount, kClasses, 1.0F, 0.0F, out, outside,
                             nullptr);
  const std::vector<int64_t> later{kClasses};  // a second launch, whose number is not the first
  set.typed<float>().one_hot(memory.input(later), 1, kClasses, 1.0F, 0.0F,
                             memory.output<float>(kClasses), outside, nullptr);
  ids[0] = kClasses;
  int64_t* rows = memory.output<int64_t>(kCount);
  set.rows_of_index(memory.input(ids), 1, kCount, kClasses, rows, nullptr);
  int64_t* of_groups = memory.output<int64_t>(kCount - 1);
  set.rows_of_index(memory.input(std::vector<int64_t>(ids.begin() + 1, ids.end())), 3, 20, kClasses,
                    of_groups, nullptr);
  std::vector<int64_t> want_rows = ids, want_groups;
  want_rows[0] = -1;
  for (int64_t i = 0; i < kCount - 1; ++i) {
    want_groups.push_back(i / 20 * kClasses + ids[static_cast<size_t>(i) + 1]);
  }
  std::string finding =
      first_of({differs("one hot", out, want, 0), differ("rows of one group", rows, want_rows),
                differ("rows of groups", of_groups, want_groups),
                noted(*note, ops::Numbers::kOneHot, kClasses, {-1})});
  for (const int64_t diagonal : {-20, -1, 0, 3, 20}) {
    uint8_t* mask = memory.output<uint8_t>(kRows * kColumns);
    set.triangular_mask(kRows, kColumns, diagonal, mask, nullptr);
    for (int64_t i = 0; i < kRows * kColumns && finding.empty(); ++i) {
      const bool seen = i % kColumns <= i / kColumns + diagonal;
      if (mask[i] != (seen ? 1 : 0)) finding = "mask of diagonal " + std::to_string(diagonal);
    }
  }
  return first_of({finding, memory.violation()});
}

// ---- segments
struct Graph {
  int64_t elements, count, inner;
};
std::vector<Graph> graphs() {
  return {{0, 3, 2}, {1, 1, 1}, {7, 3, 1}, {13, 5, 2}, {5, 9, 3}, {131, 31, 17}, {200, 1, 3}};
}

// The lists of members, by the kernels' own starts.
struct Lists {
  Lists(DeviceMemory& memory, const KernelSet& set, const std::vector<int64_t>& ids, int64_t count)
      : note(memory.in_out(std::vector<Note>(1))) {
    std::vector<int64_t> order(ids.size()), sorted;
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, {}, [&](int64_t e) { return ids[static_cast<size_t>(e)]; });
    for (const int64_t e : order) sorted.push_back(ids[static_cast<size_t>(e)]);
    const int64_t n = static_cast<int64_t>(ids.size());
    int64_t* start = memory.output<int64_t>(count + 1);
    set.segment_starts(memory.input(sorted), n, 0, count, start, {note, ops::Numbers::kSegment},
                       nullptr);
    segments = {start, memory.input(order), count, n};
  }
  Segments segments{};
  Note* note;
};

std::vector<double> wide(const Tensor& x) { return x.to_vector<double>(); }

template <typename T>
std::string check_segments_of(const Graph& g, const KernelSet& set) {
  const TypedKernels<T>& kernels = set.typed<T>();
  Bench bench(1);
  Context& cx = bench.context;
  DeviceMemory memory;
  const int64_t n = g.elements * g.inner, sums = g.count * g.inner;
  const std::vector<float> values = rounded<T>(random_values(n, 71));
  const std::vector<float> slopes = rounded<T>(random_values(sums, 72));
  const std::vector<int64_t> ids = numbers_below(g.elements, g.count, 73);
  const Lists lists(memory, set, ids, g.count);
  const T *x = memory.input(as<T>(values)), *dy = memory.input(as<T>(slopes));
  T *total = memory.output<T>(sums), *largest = memory.output<T>(sums);
  T *share = memory.output<T>(n),
    *dx = memory.in_out(std::vector<T>(static_cast<size_t>(n), T(0.0F)));
  T* added = memory.in_out(as<T>(slopes));
  int64_t* place = memory.output<int64_t>(sums);
  kernels.segment_sum(lists.segments, x, 1, g.inner, false, total, nullptr);
  kernels.segment_sum(lists.segments, x, 1, g.inner, true, added, nullptr);
  kernels.segment_max(lists.segments, x, g.inner, largest, place, nullptr);
  kernels.segment_max_backward(dy, place, sums, g.inner, dx, nullptr);
  kernels.segment_softmax(lists.segments, x, g.inner, share, nullptr);
  const Tensor in = in_double(bench, {g.elements, g.inner}, values);
  const Tensor d = in_double(bench, {g.count, g.inner}, slopes);
  const Tensor segment = Tensor::from<int64_t>(*bench.allocator, Shape{g.elements}, ids);
  const testing::Function max = [&](Context& c, std::span<const Tensor> xs) {
    return ops::segment_max(c, xs[0], segment, g.count);
  };
  const auto gradients = gradients_of(bench, max, {in}, d);
  const Tensor before = in.detach();
  return first_of(
      {differs("sums", total, wide(ops::segment_sum(cx, before, segment, g.count)), near<T>(1e-5)),
       differs("sums added", added, wide(ops::index_add(cx, d, 0, segment, before)), near<T>(1e-5)),
       differs("maxima", largest, wide(ops::segment_max(cx, before, segment, g.count)), 0),
       differs("gradient of maxima", dx, gradients[0], 0),
       differs("softmax", share, wide(ops::segment_softmax(cx, before, segment, g.count)),
               near<T>(2e-6)),
       lists.note->taken == 0 ? "" : "a segment that there is was noted", memory.violation()});
}

// Slices along the middle, and segments that are none: elements before the first and behind the
// last count for nothing.
std::string check_segments_outside(const KernelSet& set) {
  Bench bench(1);
  DeviceMemory memory;
  constexpr int64_t kOuter = 2, kElements = 6, kCount = 3, kInner = 5;
  const std::vector<float> values = random_values(kOuter * kElements * kInner, 74);
  const Lists lists(memory, set, {2, -1, 0, 3, 0, 2}, kCount);
  float* out = memory.output<float>(kOuter * kCount * kInner);
  set.typed<float>().segment_sum(lists.segments, memory.input(values), kOuter, kInner, false, out,
                                 nullptr);
  const Tensor x = in_double(bench, {kOuter, kElements, kInner}, values);
  const Tensor kept =
      ops::index_select(bench.context, x, 1, testing::ids(bench.context, {4}, {0, 2, 4, 5}));
  const Tensor zeros = Tensor::zeros(*bench.allocator, {kOuter, kCount, kInner}, DType::kF64);
  const Tensor expected =
      ops::index_add(bench.context, zeros, 1, testing::ids(bench.context, {4}, {2, 0, 0, 2}), kept);
  const std::vector<int64_t> offsets{0, 0, 3, 3, 40, 41};
  int64_t* segment = memory.output<int64_t>(41);
  set.segments_of_offsets(memory.input(offsets), 5, 41, segment, nullptr);
  std::vector<int64_t> want(41, 3);
  std::fill_n(want.begin(), 3, 1);
  want.back() = 4;
  const Lists at_end(memory, set, {2, 0, 4}, kCount);
  return first_of({differs("sums of slices", out, wide(expected), 1e-6),
                   noted(*lists.note, ops::Numbers::kSegment, kCount, {-1}),
                   noted(*at_end.note, ops::Numbers::kSegment, kCount, {4}),
                   differ("segments of offsets", segment, want), memory.violation()});
}

}  // namespace

std::string check_log_softmax(const KernelSet& set) {
  const testing::Function op = [](Context& cx, std::span<const Tensor> in) {
    return ops::log_softmax(cx, in[0], 1);
  };
  const auto check = [&]<typename T>(const RowShape& shape) {
    Bench bench(1);
    DeviceMemory memory;
    const int64_t n = shape.rows * shape.width;
    std::vector<float> values = rounded<T>(random_values(n, 60, 4, 90));
    for (int64_t i = 0; i < shape.width && shape.rows > 2; ++i) {
      values[static_cast<size_t>(2 * shape.width + i)] = -std::numeric_limits<float>::infinity();
      values[static_cast<size_t>(shape.width + i)] = i % 2 == 0
                                                         ? std::numeric_limits<float>::quiet_NaN()
                                                         : -std::numeric_limits<float>::infinity();
    }
    const std::vector<float> slopes = rounded<T>(random_values(n, 69));
    T *y = memory.output<T>(n), *dx = memory.output<T>(n);
    set.typed<T>().log_softmax(memory.input(as<T>(values)), y, shape.rows, shape.width, nullptr);
    const std::vector<Tensor> x{in_double(bench, {shape.rows, shape.width}, values)};
    const Tensor expected = op(bench.context, x);
    std::vector<float> logs;
    for (const double value : expected.to_vector<double>())
      logs.push_back(static_cast<float>(value));
    logs = rounded<T>(logs);
    set.typed<T>().log_softmax_backward(memory.input(as<T>(logs)), memory.input(as<T>(slopes)), dx,
                                        shape.rows, shape.width, nullptr);
    // Of the logarithms as they were rounded.
    std::vector<double> want;
    for (int64_t row = 0; row < shape.rows; ++row) {
      const auto at = [&](int64_t i) { return static_cast<size_t>(row * shape.width + i); };
      double total = 0;
      for (int64_t i = 0; i < shape.width; ++i) total += static_cast<double>(slopes[at(i)]);
      for (int64_t i = 0; i < shape.width; ++i) {
        want.push_back(static_cast<double>(slopes[at(i)]) -
                       std::exp(static_cast<double>(logs[at(i)])) * total);
      }
    }
    return first_of({differs("log_softmax", y, expected.to_vector<double>(), near<T>(4e-6)),
                     differs("its gradient", dx, want, near<T>(1e-5)), memory.violation()});
  };
  for (const RowShape& shape : row_shapes()) {
    const std::string finding =
        of_types([&]<typename T>() { return check.template operator()<T>(shape); });
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_lines(const KernelSet& set) {
  for (const Lines& lines : line_cases()) {
    for (const bool on : {false, true}) {
      const std::string finding = of_types([&]<typename T>() {
        return first_of({check_extremes_of(lines, on, set.typed<T>()),
                         check_running_sums_of(lines, on, set.typed<T>())});
      });
      if (!finding.empty()) return finding;
    }
  }
  return "";
}

std::string check_sort(const KernelSet& set) {
  for (const RowShape& shape : sort_cases()) {
    for (const bool descending : {false, true}) {
      const std::string finding =
          of_types([&]<typename T>() { return check_sort_of(shape, descending, set.typed<T>()); });
      if (!finding.empty()) return finding;
    }
  }
  return check_sort_of_numbers(set);
}

std::string check_numbers(const KernelSet& set) {
  for (const int along : {0, 1, 2}) {
    const std::string finding = of_types([&]<typename T>() {
      return first_of({check_numbers_of<T>(along, set), check_put_of(along, set.typed<T>())});
    });
    if (!finding.empty()) return finding;
  }
  return check_encodings(set);
}

std::string check_segments(const KernelSet& set) {
  for (const Graph& graph : graphs()) {
    const std::string finding =
        of_types([&]<typename T>() { return check_segments_of<T>(graph, set); });
    if (!finding.empty()) return finding;
  }
  return check_segments_outside(set);
}

}  // namespace weft::cuda
