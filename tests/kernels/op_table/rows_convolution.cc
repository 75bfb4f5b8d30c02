// Convolution and pooling over one and two dims.
#include "kernels/ops/convolution.h"
#include "kernels/ops/indexing.h"
#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

using List = std::vector<double>;

struct Layer {
  Shape x, weight;
  List stride = {}, before = {}, after = {}, dilation = {};
  double groups = 1;
  bool bias = true;
};

const std::vector<Layer>& layers() {
  static const std::vector<Layer> all{
      {{2, 3, 7}, {5, 3, 3}},
      {{1, 1, 1}, {1, 1, 1}, {}, {}, {}, {}, 1, false},
      {{0, 2, 5}, {3, 2, 2}},
      {{2, 4, 11}, {6, 2, 3}, {2}, {1}, {1}, {}, 2},
      {{1, 3, 13}, {3, 1, 5}, {1}, {8}, {0}, {2}, 3},  // causal, dilated, a group a channel
      {{3, 2, 9}, {4, 2, 4}, {3}, {2}, {3}, {2}, 1, false},
      {{2, 3, 5, 7}, {4, 3, 3, 3}, {}, {1, 1}},
      {{1, 2, 8, 5}, {3, 2, 2, 3}, {2, 3}, {0, 2}, {1, 1}, {2, 1}},
      {{2, 6, 4, 4}, {6, 1, 3, 3}, {1, 1}, {1, 1}, {}, {}, 6},
      {{2, 5, 6, 3}, {7, 5, 1, 1}},  // a product of matrices
      {{2, 5, 6, 3}, {4, 5, 1, 1}, {2, 2}, {}, {}, {}, 1, false},
      {{1, 4, 1, 9}, {2, 2, 1, 5}, {1, 2}, {0, 4}, {0, 4}, {}, 2},
      {{1, 1, 17, 13}, {2, 1, 7, 5}, {2, 1}, {3, 2}},
      {{2, 3, 61, 67}, {5, 3, 3, 3}, {}, {1, 1}},  // several pieces
      {{9, 1, 31}, {2, 1, 3}, {}, {1}},
      {{5, 17, 6, 7}, {19, 17, 3, 2}, {2, 1}, {1, 0}, {2, 1}, {1, 2}},
      {{2, 20, 9, 8}, {20, 1, 3, 3}, {1, 2}, {1, 1}, {}, {}, 20},
      {{2, 3, 9, 8}, {16, 3, 3, 3}, {2, 2}, {1, 1}},
      {{3, 16, 7, 6}, {32, 16, 3, 3}, {}, {1, 1}, {}, {}, 1, false}};
  return all;
}

std::vector<Case> convolutions(const Attributes& attributes = {}) {
  std::vector<Case> cases;
  for (const Layer& layer : layers()) {
    Case item{{real(layer.x), real(layer.weight)}, attributes};
    if (layer.bias) item.inputs.push_back(real({layer.weight[0]}));
    const std::pair<const char*, const List&> lists[] = {{"stride", layer.stride},
                                                         {"before", layer.before},
                                                         {"after", layer.after},
                                                         {"dilation", layer.dilation}};
    for (const auto& [name, list] : lists) {
      if (!list.empty()) item.attributes.set(name, list);
    }
    item.attributes.set("groups", {layer.groups});
    cases.push_back(std::move(item));
  }
  return cases;
}

// The layers' results as inputs, and outputs as long as their inputs where the stride allows it.
std::vector<Case> transposed_convolutions() {
  std::vector<Case> cases = convolutions();
  for (size_t i = 0; i < cases.size(); ++i) {
    Case& item = cases[i];
    const Shape weight = item.inputs[1].shape;
    item.inputs[0].shape[1] = weight[0];
    if (item.inputs.size() > 2) {
      item.inputs[2].shape = {weight[1] * item.attributes.integer("groups")};
    }
    if (i % 2 == 1 && item.attributes.has("stride")) {
      List more;
      for (const int64_t stride : item.attributes.integers("stride")) {
        more.push_back(static_cast<double>(stride - 1));
      }
      item.attributes.set("output_padding", more);
    }
  }
  return cases;
}

std::vector<int64_t> list(const Attributes& a, const char* name) {
  return a.has(name) ? a.integers(name) : std::vector<int64_t>();
}

ops::ConvolutionForm form_of(const Attributes& a) {
  return {list(a, "stride"), list(a, "before"), list(a, "after"), list(a, "dilation"),
          a.integer("groups")};
}

Outputs convolved(Context& cx, Inputs x, const Attributes& a) {
  return {ops::convolution(cx, x[0], x[1], x.size() > 2 ? x[2] : Tensor(), form_of(a))};
}

Outputs transposed(Context& cx, Inputs x, const Attributes& a) {
  return {ops::transposed_convolution(cx, x[0], x[1], x.size() > 2 ? x[2] : Tensor(), form_of(a),
                                      list(a, "output_padding"))};
}

// ---- the same tap by tap, in ops that look nothing like it

// Numbers for both of two dims, of which a missing first one is `rest`.
std::array<int64_t, 2> two(const std::vector<int64_t>& numbers, int dims, int64_t rest) {
  if (numbers.empty()) return {rest, rest};
  return dims == 1 ? std::array{rest, numbers[0]} : std::array{numbers[0], numbers[1]};
}

struct Plain {
  std::array<int64_t, 2> stride, before, after, dilation, more;
  int64_t groups;
  Plain(const Attributes& a, int dims)
      : stride(two(list(a, "stride"), dims, 1)),
        before(two(list(a, "before"), dims, 0)),
        after(a.has("after") ? two(list(a, "after"), dims, 0) : before),
        dilation(two(list(a, "dilation"), dims, 1)),
        more(two(list(a, "output_padding"), dims, 0)),
        groups(a.integer("groups")) {}
};

Tensor two_dimensional(Context& cx, const Tensor& x) {
  if (x.shape().dims() == 4) return x;
  return ops::reshape(cx, x, Shape{x.dim(0), x.dim(1), 1, x.dim(2)});
}

// first, first + step, ..
Tensor steps(Context& cx, int64_t first, int64_t step, int64_t count) {
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < count; ++i) numbers.push_back(first + i * step);
  return Tensor::from<int64_t>(cx.allocator, Shape{count}, numbers);
}

// [rows, columns] of the weight of a group at a tap.
Tensor tap_of(Context& cx, const Tensor& weight, int64_t up, int64_t across) {
  const Tensor one = ops::slice(cx, ops::slice(cx, weight, 2, up, 1), 3, across, 1);
  return ops::reshape(cx, one, Shape{weight.dim(0), weight.dim(1)});
}

Outputs finished(Context& cx, const Tensor& y, Inputs x) {
  const Tensor shaped =
      x[0].shape().dims() == 4 ? y : ops::reshape(cx, y, Shape{y.dim(0), y.dim(1), y.dim(3)});
  if (x.size() < 3) return {shaped};
  Shape column{x[2].dim(0)};
  for (int dim = 2; dim < x[0].shape().dims(); ++dim) column.push_back(1);
  return {ops::add(cx, shaped, ops::reshape(cx, x[2], column))};
}

Outputs convolved_by_taps(Context& cx, Inputs x, const Attributes& a) {
  const Plain p(a, x[0].shape().dims() - 2);
  const Tensor weight = two_dimensional(cx, x[1]);
  Tensor padded = two_dimensional(cx, x[0]);
  for (const int dim : {0, 1}) {
    const auto d = static_cast<size_t>(dim);
    padded = ops::pad(cx, padded, 2 + dim, p.before[d], p.after[d]);
  }
  std::array<int64_t, 2> out;
  for (const size_t d : {0U, 1U}) {
    const int dim = 2 + static_cast<int>(d);
    const int64_t reach = p.dilation[d] * (weight.dim(dim) - 1) + 1;
    out[d] = (padded.dim(dim) - reach) / p.stride[d] + 1;
  }
  const int64_t in = weight.dim(1), outputs = weight.dim(0) / p.groups, samples = padded.dim(0);
  std::vector<Tensor> groups;
  for (int64_t group = 0; group < p.groups; ++group) {
    const Tensor from = ops::slice(cx, padded, 1, group * in, in);
    const Tensor w = ops::slice(cx, weight, 0, group * outputs, outputs);
    Tensor total;
    for (int64_t tap = 0; tap < w.dim(2) * w.dim(3); ++tap) {
      const int64_t up = tap / w.dim(3), across = tap % w.dim(3);
      Tensor seen =
          ops::index_select(cx, from, 2, steps(cx, up * p.dilation[0], p.stride[0], out[0]));
      seen = ops::index_select(cx, seen, 3, steps(cx, across * p.dilation[1], p.stride[1], out[1]));
      const Tensor flat = ops::reshape(cx, seen, Shape{samples, in, out[0] * out[1]});
      const Tensor part = ops::matmul(cx, tap_of(cx, w, up, across), flat);
      total = total ? ops::add(cx, total, part) : part;
    }
    groups.push_back(ops::reshape(cx, total, Shape{samples, outputs, out[0], out[1]}));
  }
  return finished(cx, ops::concat(cx, groups, 1), x);
}

// Every tap adds its product to where it writes, of which the padding is cut off.
Outputs transposed_by_taps(Context& cx, Inputs x, const Attributes& a) {
  const Plain p(a, x[0].shape().dims() - 2);
  const Tensor weight = two_dimensional(cx, x[1]), source = two_dimensional(cx, x[0]);
  const std::array in = {source.dim(2), source.dim(3)};
  std::array<int64_t, 2> full;
  for (const size_t d : {0U, 1U}) {
    const int64_t reach = p.dilation[d] * (weight.dim(2 + static_cast<int>(d)) - 1) + 1;
    full[d] = (in[d] - 1) * p.stride[d] + reach;
  }
  const int64_t channels = weight.dim(0) / p.groups, outputs = weight.dim(1);
  const int64_t samples = source.dim(0);
  std::vector<Tensor> groups;
  for (int64_t group = 0; group < p.groups; ++group) {
    const Tensor w = ops::slice(cx, weight, 0, group * channels, channels);
    const Tensor from = ops::reshape(cx, ops::slice(cx, source, 1, group * channels, channels),
                                     Shape{samples, channels, in[0] * in[1]});
    Tensor total =
        Tensor::zeros(cx.allocator, Shape{samples, outputs, full[0], full[1]}, x[0].dtype());
    for (int64_t tap = 0; tap < w.dim(2) * w.dim(3); ++tap) {
      const int64_t up = tap / w.dim(3), across = tap % w.dim(3);
      const std::vector<int> turned{1, 0};
      const Tensor left = ops::permute(cx, tap_of(cx, w, up, across), turned);
      const Tensor part =
          ops::reshape(cx, ops::matmul(cx, left, from), Shape{samples, outputs, in[0], in[1]});
      const Tensor rows =
          Tensor::zeros(cx.allocator, Shape{samples, outputs, in[0], full[1]}, x[0].dtype());
      const Tensor wide =
          ops::index_add(cx, rows, 3, steps(cx, across * p.dilation[1], p.stride[1], in[1]), part);
      total = ops::index_add(cx, total, 2, steps(cx, up * p.dilation[0], p.stride[0], in[0]), wide);
    }
    groups.push_back(total);
  }
  Tensor y = ops::concat(cx, groups, 1);
  for (const size_t d : {0U, 1U}) {
    const int dim = 2 + static_cast<int>(d);
    y = ops::pad(cx, y, dim, 0, p.more[d]);
    y = ops::slice(cx, y, dim, p.before[d], full[d] + p.more[d] - p.before[d] - p.after[d]);
  }
  return finished(cx, y, x);
}

// ---- pooling
struct Pool {
  Shape x;
  List kernel, stride, padding;
};
std::vector<Case> pools(Draw drawn, const Attributes& attributes = {}) {
  std::vector<Case> cases;
  for (const Pool& pool : std::vector<Pool>{{{2, 3, 7}, {2}, {}, {}},
                                            {{1, 1, 1}, {1}, {}, {}},
                                            {{0, 2, 5}, {2}, {}, {}},
                                            {{2, 3, 11}, {3}, {2}, {1}},
                                            {{1, 2, 13}, {4}, {1}, {2}},
                                            {{2, 2, 5}, {5}, {3}, {}},
                                            {{2, 3, 4, 6}, {2, 2}, {}, {}},
                                            {{1, 2, 7, 5}, {3, 2}, {2, 1}, {1, 1}},
                                            {{3, 1, 5, 5}, {3, 3}, {1, 1}, {1, 0}},
                                            {{2, 2, 1, 9}, {1, 4}, {1, 3}, {0, 2}},
                                            {{1, 5, 13, 11}, {5, 3}, {3, 2}, {2, 1}},
                                            {{2, 3, 67, 41}, {2, 2}, {2, 2}, {}}}) {
    Case item{{{pool.x, drawn, 0, 0, {}, true}}, attributes};
    item.attributes.set("kernel", pool.kernel);
    if (!pool.stride.empty()) item.attributes.set("stride", pool.stride);
    if (!pool.padding.empty()) item.attributes.set("padding", pool.padding);
    cases.push_back(std::move(item));
  }
  return cases;
}

ops::Window window_of(const Attributes& a) {
  return {list(a, "kernel"), list(a, "stride"), list(a, "padding")};
}

Outputs max_pooled(Context& cx, Inputs x, const Attributes& a) {
  return {ops::max_pool(cx, x[0], window_of(a))};
}

Outputs average_pooled(Context& cx, Inputs x, const Attributes& a) {
  return {ops::average_pool(cx, x[0], window_of(a), a.flag("count_padding"))};
}

Outputs adaptively_pooled(Context& cx, Inputs x, const Attributes& a) {
  return {ops::adaptive_average_pool(cx, x[0], a.integers("extents"))};
}

std::vector<Case> adaptive_pools() {
  struct Adaptive {
    Shape x;
    List extents;
  };
  std::vector<Case> cases;
  for (const Adaptive& pool : std::vector<Adaptive>{{{2, 3, 7}, {3}},
                                                    {{1, 1, 1}, {1}},
                                                    {{0, 2, 5}, {2}},
                                                    {{2, 3, 11}, {1}},
                                                    {{1, 2, 13}, {13}},
                                                    {{2, 2, 5}, {7}},
                                                    {{2, 3, 4, 6}, {2, 2}},
                                                    {{1, 2, 7, 5}, {1, 1}},
                                                    {{3, 1, 5, 5}, {3, 2}},
                                                    {{2, 2, 1, 9}, {2, 4}},
                                                    {{1, 5, 13, 11}, {7, 7}},
                                                    {{2, 3, 67, 41}, {6, 5}}}) {
    cases.push_back({{real(pool.x)}, {{"extents", pool.extents}}});
  }
  return cases;
}

}  // namespace

std::vector<Row> convolution_rows() {
  return {
      {"convolution", convolved, convolutions(), convolved_by_taps},
      {"convolution_in_blocks", convolved, convolutions({{"block_count", {4}}}), convolved_by_taps},
      {"transposed_convolution", transposed, transposed_convolutions(), transposed_by_taps},
      {"max_pool", max_pooled, pools(Draw::kDistinct)},
      {"average_pool", average_pooled,
       all({pools(Draw::kNormal, {{"count_padding", {1}}}),
            pools(Draw::kNormal, {{"count_padding", {0}}})})},
      {"adaptive_average_pool", adaptively_pooled, adaptive_pools(), nullptr, 16},
  };
}

}  // namespace weft::op_table
