// Columns of convolutions, pooling and recurrent gates against the CPU ops in float64.
#include "kernels/ops/convolution.h"
#include "kernels/ops/recurrent.h"
#include "tests/kernels/cuda/comparison.h"

namespace weft::cuda {
namespace {

struct Columns {
  int64_t images, channels;
  ConvolutionWindow window;
};
std::vector<Columns> column_cases() {
  return {{1, 1, {{1, 1}, {1, 1}, {1, 1}, {1, 1}, {0, 0}, {1, 1}}},
          {0, 2, {{3, 3}, {2, 2}, {2, 2}, {1, 1}, {0, 0}, {1, 1}}},
          {2, 3, {{5, 7}, {5, 7}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}},
          {1, 2, {{8, 5}, {3, 2}, {2, 3}, {2, 3}, {0, 2}, {2, 1}}},
          {2, 1, {{1, 300}, {1, 300}, {1, 3}, {1, 1}, {0, 8}, {1, 4}}},  // causal
          {3, 5, {{13, 11}, {7, 4}, {5, 3}, {2, 3}, {3, 1}, {1, 2}}}};
}

// A convolution whose results are the columns: an output for each channel and tap.
Tensor taking_columns(Context& cx, const Tensor& x, const Columns& c) {
  const ConvolutionWindow& w = c.window;
  const int64_t taps = w.kernel[0] * w.kernel[1];
  const Shape shape{c.channels * taps, c.channels, w.kernel[0], w.kernel[1]};
  const Tensor weight = Tensor::zeros(cx.allocator, shape, DType::kF64);
  for (int64_t row = 0; row < shape[0]; ++row) {
    weight.data<double>()[(row * c.channels + row / taps) * taps + row % taps] = 1;
  }
  ops::ConvolutionForm form;
  for (const int d : {0, 1}) {
    const int64_t reach = w.dilation[d] * (w.kernel[d] - 1) + 1;
    form.stride.push_back(w.stride[d]);
    form.dilation.push_back(w.dilation[d]);
    form.before.push_back(w.before[d]);
    form.after.push_back(
        std::max<int64_t>(0, (w.out[d] - 1) * w.stride[d] + reach - w.in[d] - w.before[d]));
  }
  return ops::convolution(cx, x, weight, Tensor(), form);
}

template <typename T>
std::string check_columns_of(const Columns& c, const TypedKernels<T>& kernels) {
  const ConvolutionWindow& w = c.window;
  Bench bench(1);
  DeviceMemory memory;
  const int64_t planes = c.images * c.channels, places = planes * w.in[0] * w.in[1];
  const int64_t rows = c.channels * w.kernel[0] * w.kernel[1];
  const Shape shape{c.images, rows, w.out[0], w.out[1]};
  const std::vector<float> values = rounded<T>(random_values(places, 41));
  const std::vector<float> slopes = rounded<T>(random_values(shape.elements(), 42));
  T *columns = memory.output<T>(shape.elements()), *dx = memory.output<T>(places);
  kernels.gather_columns(w, memory.input(as<T>(values)), columns, planes, nullptr);
  kernels.scatter_columns(w, memory.input(as<T>(slopes)), dx, planes, nullptr);
  const testing::Function op = [&c](Context& cx, std::span<const Tensor> in) {
    return taking_columns(cx, in[0], c);
  };
  const std::vector<Tensor> x{in_double(bench, {c.images, c.channels, w.in[0], w.in[1]}, values)};
  const Tensor expected = op(bench.context, x);
  if (!(expected.shape() == shape)) return "columns are " + expected.shape().to_string();
  const auto gradients = gradients_of(bench, op, x, in_double(bench, shape, slopes));
  return first_of({differs("columns", columns, expected.to_vector<double>(), 0),
                   differs("sums of columns", dx, gradients[0], near<T>(2e-6)),
                   memory.violation()});
}

struct Pool {
  int64_t images, channels;
  PoolWindow window;
};
std::vector<Pool> pool_cases() {
  return {{1, 1, {{1, 1}, {1, 1}, {1, 1}, {1, 1}, {0, 0}, true}},
          {0, 2, {{4, 4}, {2, 2}, {2, 2}, {2, 2}, {0, 0}, false}},
          {2, 3, {{4, 6}, {2, 3}, {2, 2}, {2, 2}, {0, 0}, true}},
          {1, 2, {{7, 5}, {4, 6}, {3, 2}, {2, 1}, {1, 1}, false}},
          {1, 2, {{7, 5}, {4, 6}, {3, 2}, {2, 1}, {1, 1}, true}},
          {2, 1, {{1, 301}, {1, 149}, {1, 4}, {1, 2}, {0, 0}, true}},
          {1, 5, {{13, 11}, {5, 6}, {5, 3}, {3, 2}, {2, 1}, false}}};
}
std::vector<Pool> adaptive_cases() {
  std::vector<Pool> pools{
      {1, 1, {{1, 1}, {1, 1}}}, {2, 3, {{6, 4}, {3, 2}}},
      {1, 2, {{7, 5}, {3, 4}}}, {1, 2, {{3, 2}, {5, 7}}},  // more results than places
      {0, 2, {{4, 4}, {2, 2}}}, {1, 1, {{1, 301}, {1, 13}}}};
  for (Pool& pool : pools) pool.window.adaptive = true;
  return pools;
}

template <typename T>
std::string check_pool_of(const Pool& pool, const TypedKernels<T>& kernels) {
  const PoolWindow& w = pool.window;
  Bench bench(1);
  DeviceMemory memory;
  const int64_t planes = pool.images * pool.channels, places = planes * w.in[0] * w.in[1];
  const Shape shape{pool.images, pool.channels, w.out[0], w.out[1]};
  std::vector<float> values;  // apart from each other also when rounded
  for (int64_t i = 0; i < places; ++i) values.push_back(static_cast<float>(i * 37 % 251) - 125.0F);
  const std::vector<float> slopes = rounded<T>(random_values(shape.elements(), 43));
  const T *x = memory.input(as<T>(values)), *dy = memory.input(as<T>(slopes));
  T *largest = memory.output<T>(shape.elements()), *mean = memory.output<T>(shape.elements());
  T *d_largest = memory.output<T>(places), *d_mean = memory.output<T>(places);
  int64_t* place = memory.output<int64_t>(shape.elements());
  kernels.max_pool(w, x, largest, place, planes, nullptr);
  kernels.max_pool_backward(w, dy, place, d_largest, planes, nullptr);
  kernels.average_pool(w, x, mean, planes, nullptr);
  kernels.average_pool_backward(w, dy, d_mean, planes, nullptr);
  const ops::Window window{
      {w.kernel[0], w.kernel[1]}, {w.stride[0], w.stride[1]}, {w.padding[0], w.padding[1]}};
  const testing::Function max = [&](Context& cx, std::span<const Tensor> in) {
    return ops::max_pool(cx, in[0], window);
  };
  const testing::Function average = [&](Context& cx, std::span<const Tensor> in) {
    return ops::average_pool(cx, in[0], window, w.count_padding);
  };
  const std::vector<Tensor> inputs{
      in_double(bench, {pool.images, pool.channels, w.in[0], w.in[1]}, values)};
  const Tensor d = in_double(bench, shape, slopes);
  const auto of_max = gradients_of(bench, max, inputs, d);
  const std::vector<Tensor> again{inputs[0].detach()};
  const auto of_mean = gradients_of(bench, average, again, d);
  return first_of(
      {differs("maxima", largest, max(bench.context, again).to_vector<double>(), 0),
       differs("gradient of maxima", d_largest, of_max[0], near<T>(2e-6)),
       differs("means", mean, average(bench.context, again).to_vector<double>(), near<T>(2e-6)),
       differs("gradient of means", d_mean, of_mean[0], near<T>(2e-6)), memory.violation()});
}

template <typename T>
std::string check_adaptive_pool_of(const Pool& pool, const TypedKernels<T>& kernels) {
  const PoolWindow& w = pool.window;
  Bench bench(1);
  DeviceMemory memory;
  const int64_t planes = pool.images * pool.channels;
  const Shape shape{pool.images, pool.channels, w.in[0], w.in[1]};
  const Shape pooled{pool.images, pool.channels, w.out[0], w.out[1]};
  const std::vector<float> values = rounded<T>(random_values(shape.elements(), 51));
  const std::vector<float> slopes = rounded<T>(random_values(pooled.elements(), 52));
  T *mean = memory.output<T>(pooled.elements()), *dx = memory.output<T>(shape.elements());
  kernels.average_pool(w, memory.input(as<T>(values)), mean, planes, nullptr);
  kernels.average_pool_backward(w, memory.input(as<T>(slopes)), dx, planes, nullptr);
  const testing::Function op = [&](Context& cx, std::span<const Tensor> in) {
    return ops::adaptive_average_pool(cx, in[0], {w.out[0], w.out[1]});
  };
  const std::vector<Tensor> x{in_double(bench, shape, values)};
  const Tensor expected = op(bench.context, x);
  const auto gradients = gradients_of(bench, op, x, in_double(bench, pooled, slopes));
  return first_of({differs("adaptive means", mean, expected.to_vector<double>(), near<T>(2e-6)),
                   differs("their gradient", dx, gradients[0], near<T>(2e-6)), memory.violation()});
}

// [h, c'] of [gates, c], and h' of [a, b, h].
Tensor lstm_of(Context& cx, std::span<const Tensor> in) {
  const ops::LstmState state = ops::lstm_gates(cx, in[0], in[1]);
  const std::array parts = {state.h, state.c};
  return ops::concat(cx, parts, -1);
}
Tensor gru_of(Context& cx, std::span<const Tensor> in) {
  return ops::gru_gates(cx, in[0], in[1], in[2]);
}

// The left or the right half of each row.
std::vector<float> half_of(const std::vector<float>& values, int64_t width, bool right) {
  std::vector<float> half;
  for (size_t i = 0; i < values.size(); ++i) {
    const bool in_right = static_cast<int64_t>(i) / width % 2 == 1;
    if (in_right == right) half.push_back(values[i]);
  }
  return half;
}

// keeps_state: the cell's own gradient is absent.
template <typename T>
std::string check_lstm_of(const RowShape& shape, bool keeps_state, const TypedKernels<T>& kernels) {
  Bench bench(1);
  DeviceMemory memory;
  const int64_t n = shape.rows * shape.width;
  const std::vector<float> gates = rounded<T>(random_values(4 * n, 44));
  const std::vector<float> states = rounded<T>(random_values(n, 45));
  std::vector<float> slopes = rounded<T>(random_values(2 * n, 46));
  for (size_t i = 0; i < slopes.size() && keeps_state; ++i) {
    if (static_cast<int64_t>(i) / shape.width % 2 == 1) slopes[i] = 0;
  }
  const T* c = memory.input(as<T>(states));
  const T* dh = memory.input(as<T>(half_of(slopes, shape.width, false)));
  const T* dnext = keeps_state ? nullptr : memory.input(as<T>(half_of(slopes, shape.width, true)));
  T *h = memory.output<T>(n), *next = memory.output<T>(n), *bent = memory.output<T>(4 * n);
  T *dgates = memory.output<T>(4 * n), *dc = memory.output<T>(n);
  kernels.lstm_gates(memory.input(as<T>(gates)), c, h, next, bent, shape.rows, shape.width,
                     nullptr);
  kernels.lstm_gates_backward(bent, c, next, dh, dnext, dgates, dc, shape.rows, shape.width,
                              nullptr);
  const std::vector<Tensor> inputs{in_double(bench, {shape.rows, 4 * shape.width}, gates),
                                   in_double(bench, {shape.rows, shape.width}, states)};
  const ops::LstmState state = ops::lstm_gates(bench.context, inputs[0], inputs[1]);
  const auto gradients =
      gradients_of(bench, lstm_of, inputs, in_double(bench, {shape.rows, 2 * shape.width}, slopes));
  return first_of({differs("h", h, state.h.to_vector<double>(), near<T>(2e-6)),
                   differs("c", next, state.c.to_vector<double>(), near<T>(2e-6)),
                   differs("dgates", dgates, gradients[0], 4 * near<T>(2e-6)),
                   differs("dc", dc, gradients[1], 4 * near<T>(2e-6)), memory.violation()});
}

template <typename T>
std::string check_gru_of(const RowShape& shape, const TypedKernels<T>& kernels) {
  Bench bench(1);
  DeviceMemory memory;
  const int64_t n = shape.rows * shape.width;
  const std::vector<float> from_input = rounded<T>(random_values(3 * n, 47));
  const std::vector<float> from_hidden = rounded<T>(random_values(3 * n, 48));
  const std::vector<float> states = rounded<T>(random_values(n, 49));
  const std::vector<float> slopes = rounded<T>(random_values(n, 50));
  const T *b = memory.input(as<T>(from_hidden)), *h = memory.input(as<T>(states));
  T *next = memory.output<T>(n), *bent = memory.output<T>(3 * n), *dh = memory.output<T>(n);
  T *da = memory.output<T>(3 * n), *db = memory.output<T>(3 * n);
  kernels.gru_gates(memory.input(as<T>(from_input)), b, h, next, bent, shape.rows, shape.width,
                    nullptr);
  std::vector<float> of_new;
  for (int64_t row = 0; row < shape.rows; ++row) {
    const auto last = from_hidden.begin() + row * 3 * shape.width + 2 * shape.width;
    of_new.insert(of_new.end(), last, last + shape.width);
  }
  kernels.gru_gates_backward(bent, memory.input(as<T>(of_new)), h, memory.input(as<T>(slopes)), da,
                             db, dh, shape.rows, shape.width, nullptr);
  const std::vector<Tensor> inputs{in_double(bench, {shape.rows, 3 * shape.width}, from_input),
                                   in_double(bench, {shape.rows, 3 * shape.width}, from_hidden),
                                   in_double(bench, {shape.rows, shape.width}, states)};
  const Tensor expected = gru_of(bench.context, inputs);
  const auto gradients =
      gradients_of(bench, gru_of, inputs, in_double(bench, {shape.rows, shape.width}, slopes));
  return first_of({differs("h", next, expected.to_vector<double>(), near<T>(2e-6)),
                   differs("da", da, gradients[0], 4 * near<T>(2e-6)),
                   differs("db", db, gradients[1], 4 * near<T>(2e-6)),
                   differs("dh", dh, gradients[2], 4 * near<T>(2e-6)), memory.violation()});
}

}  // namespace

std::string check_columns(const KernelSet& set) {
  for (const Columns& c : column_cases()) {
    const std::string finding =
        of_types([&]<typename T>() { return check_columns_of(c, set.typed<T>()); });
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_pooling(const KernelSet& set) {
  for (const Pool& pool : pool_cases()) {
    const std::string finding =
        of_types([&]<typename T>() { return check_pool_of(pool, set.typed<T>()); });
    if (!finding.empty()) return finding;
  }
  for (const Pool& pool : adaptive_cases()) {
    const std::string finding =
        of_types([&]<typename T>() { return check_adaptive_pool_of(pool, set.typed<T>()); });
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_recurrent(const KernelSet& set) {
  for (const RowShape& shape : row_shapes()) {
    const std::string finding = of_types([&]<typename T>() {
      return first_of({check_lstm_of(shape, false, set.typed<T>()),
                       check_lstm_of(shape, true, set.typed<T>()),
                       check_gru_of(shape, set.typed<T>())});
    });
    if (!finding.empty()) return finding;
  }
  return "";
}

}  // namespace weft::cuda
