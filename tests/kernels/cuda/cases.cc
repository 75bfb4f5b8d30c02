// Kernels that work on single elements, against the CPU ops; and the list of all cases.
#include "kernels/cuda/launch.h"
#include "tests/kernels/cuda/comparison.h"
#include "tests/testing/rank_runner.h"
#include "worker/optimizer/optimizer.h"

namespace weft::cuda {
namespace {

const std::vector<int64_t> kCounts{0, 1, 31, 257, 1000};

std::vector<double> in_order(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

Tensor floats(Bench& bench, const std::vector<float>& values) {
  return Tensor::from<float>(*bench.allocator, Shape{static_cast<int64_t>(values.size())}, values);
}

std::string check_add_and_multiply(const KernelSet& kernels) {
  std::vector<int64_t> counts = kCounts;
  counts.push_back(kBlocksMax * kThreads + 77);  // some threads take two
  for (const int64_t n : counts) {
    Bench bench(1);
    DeviceMemory memory;
    const std::vector<float> left = random_values(n, 21), right = random_values(n, 22);
    const float *a = memory.input(left), *b = memory.input(right);
    float* out = memory.output<float>(n);
    const Tensor x = floats(bench, left), y = floats(bench, right);
    kernels.add(a, b, out, n, nullptr);
    std::string finding =
        differs("add", out, in_order(ops::add(bench.context, x, y).to_vector<float>()), 0);
    if (finding.empty() && n <= 1000) {
      kernels.multiply(a, b, out, n, nullptr);
      finding = differs("multiply", out,
                        in_order(ops::multiply(bench.context, x, y).to_vector<float>()), 0);
    }
    finding = first_of({finding, memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_scale_bias(const KernelSet& kernels) {
  for (const RowShape& shape : row_shapes()) {
    Bench bench(1);
    Context& cx = bench.context;
    DeviceMemory memory;
    const int64_t n = shape.rows * shape.width;
    const std::vector<float> values = random_values(n, 23), biases = random_values(shape.width, 24);
    float *with = memory.output<float>(n), *without = memory.output<float>(n);
    const float* x = memory.input(values);
    kernels.scale_bias(x, memory.input(biases), 0.75F, with, shape.rows, shape.width, nullptr);
    kernels.scale_bias(x, nullptr, 0.75F, without, shape.rows, shape.width, nullptr);
    const Tensor scaled = ops::scale(cx, in_double(bench, {shape.rows, shape.width}, values), 0.75);
    const Tensor moved = ops::add(cx, scaled, in_double(bench, {shape.width}, biases));
    const std::string finding = first_of(
        {differs("with bias", with, moved.to_vector<double>(), 1e-6),
         differs("without bias", without, scaled.to_vector<double>(), 1e-6), memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_gelu(const KernelSet& kernels) {
  for (const int64_t n : kCounts) {
    Bench bench(1);
    DeviceMemory memory;
    const std::vector<float> values = random_values(n, 25, 4), slopes = random_values(n, 26);
    const float* x = memory.input(values);
    float *y = memory.output<float>(n), *dx = memory.output<float>(n);
    kernels.gelu_tanh(x, y, n, nullptr);
    kernels.gelu_tanh_backward(x, memory.input(slopes), dx, n, nullptr);
    const auto op = [](Context& cx, std::span<const Tensor> in) {
      return ops::activate(cx, in[0], ops::Activation::kGeluTanh);
    };
    const std::vector<Tensor> inputs{in_double(bench, {n}, values)};
    const auto gradients = gradients_of(bench, op, inputs, in_double(bench, {n}, slopes));
    const std::string finding =
        first_of({differs("gelu", y, op(bench.context, inputs).to_vector<double>(), 1e-6),
                  differs("gelu'", dx, gradients[0], 3e-6), memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}

// A shard of a vocabulary: ids before it, behind it, twice the same, and the padding row.
struct Lookup {
  static constexpr int64_t kFirst = 10, kRows = 7, kPadding = 12;
  std::vector<int64_t> ids{10, 16, 9, 17, 12, 13, 13, -1, 13, 0, 11, 100, 16};
  int64_t count() const { return static_cast<int64_t>(ids.size()); }
};

std::string check_embedding(const KernelSet& kernels) {
  const Lookup lookup;
  for (const int64_t width : {1, 33, 100}) {
    Bench bench(1);
    DeviceMemory memory;
    const std::vector<float> rows = random_values(Lookup::kRows * width, 27);
    float* out = memory.output<float>(lookup.count() * width);
    kernels.embedding(memory.input(lookup.ids), memory.input(rows), Lookup::kFirst, Lookup::kRows,
                      lookup.count(), width, out, nullptr);
    const Tensor ids = testing::ids(bench.context, {lookup.count()}, lookup.ids);
    const Tensor table = Tensor::from<float>(*bench.allocator, {Lookup::kRows, width}, rows);
    const Tensor expected = ops::embedding(bench.context, ids, table, Lookup::kFirst);
    const std::string finding = first_of(
        {differs("rows", out, in_order(expected.to_vector<float>()), 0), memory.violation()});
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_embedding_scatter_add(const KernelSet& kernels) {
  const Lookup lookup;
  for (const int64_t width : {1, 33, 100}) {
    for (const int64_t padding : {int64_t{-1}, Lookup::kPadding}) {
      Bench bench(1);
      DeviceMemory memory;
      const std::vector<float> slopes = random_values(lookup.count() * width, 28);
      const int64_t n = Lookup::kRows * width;
      float* dtable = memory.in_out(std::vector<float>(static_cast<size_t>(n), 0.0F));
      kernels.embedding_scatter_add(memory.input(lookup.ids), memory.input(slopes), Lookup::kFirst,
                                    padding, Lookup::kRows, lookup.count(), width, dtable, nullptr);
      const auto op = [padding](Context& cx, std::span<const Tensor> in) {
        return ops::embedding(cx, in[0], in[1], Lookup::kFirst, padding);
      };
      const auto gradients =
          gradients_of(bench, op,
                       {testing::ids(bench.context, {lookup.count()}, lookup.ids),
                        in_double(bench, {Lookup::kRows, width}, random_values(n, 29))},
                       in_double(bench, {lookup.count(), width}, slopes));
      const std::string finding =
          first_of({differs("dtable", dtable, gradients[0], 1e-6), memory.violation()});
      if (!finding.empty()) return finding;
    }
  }
  return "";
}

// Several updates beside the optimizer's own.
std::string check_adamw(const KernelSet& kernels) {
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
          .gradient_scale = static_cast<float>(kScale)};
      kernels.adamw(constants, memory.input(gradient), p, m, v, kCount, nullptr);
      const AdamW::State& state = optimizer.states()[0];
      finding = first_of({differs("p", p, in_order(value.to_vector<float>()), 2e-7),
                          differs("m", m, in_order(state.first_moment.to_vector<float>()), 2e-7),
                          differs("v", v, in_order(state.second_moment.to_vector<float>()), 2e-7),
                          memory.violation()});
    }
  });
  return finding;
}

struct Shard {
  std::vector<int64_t> extent, global, offset;
};

std::string check_dropout(const KernelSet& kernels) {
  const RandomKey key{.seed = 0x123456789ABCDEF0, .stream = 0xFEDCBA987654321};
  const std::vector<Shard> shards{{{1000}, {1000}, {0}},
                                  {{257}, {70000}, {4099}},
                                  {{3, 5, 7}, {6, 9, 7}, {2, 4, 0}},
                                  {{2, 0}, {2, 4}, {0, 1}},
                                  {{2, 2, 33}, {2, 5, 50}, {0, 3, 11}}};
  for (const Shard& shard : shards) {
    for (const double rate : {0.0, 0.1, 0.75}) {
      Bench bench(1);
      DeviceMemory memory;
      Shape shape, global;
      for (const int64_t extent : shard.extent) shape.push_back(extent);
      for (const int64_t extent : shard.global) global.push_back(extent);
      const std::vector<float> values = random_values(shape.elements(), 30);
      float* y = memory.output<float>(shape.elements());
      kernels.dropout(memory.input(values), shard.extent, shard.global, shard.offset, rate, key, y,
                      nullptr);
      const Tensor x = Tensor::from<float>(*bench.allocator, shape, values);
      const Tensor expected = ops::dropout(bench.context, x, rate, key, {global, shard.offset});
      const std::string finding = first_of(
          {differs("dropout of " + shape.to_string(), y, in_order(expected.to_vector<float>()), 0),
           memory.violation()});
      if (!finding.empty()) return finding;
    }
  }
  return "";
}

}  // namespace

const std::vector<Case>& cases() {
  static const std::vector<Case> all{{"add_and_multiply", check_add_and_multiply},
                                     {"scale_bias", check_scale_bias},
                                     {"gelu", check_gelu},
                                     {"embedding", check_embedding},
                                     {"embedding_scatter_add", check_embedding_scatter_add},
                                     {"adamw", check_adamw},
                                     {"dropout", check_dropout},
                                     {"layer_norm", check_layer_norm},
                                     {"layer_norm_backward", check_layer_norm_backward},
                                     {"softmax", check_softmax},
                                     {"softmax_backward", check_softmax_backward},
                                     {"cross_entropy", check_cross_entropy},
                                     {"cross_entropy_backward", check_cross_entropy_backward},
                                     {"sums", check_sums},
                                     {"attention_plain", check_attention_plain},
                                     {"attention_widths", check_attention_widths},
                                     {"attention_rules", check_attention_rules}};
  return all;
}

}  // namespace weft::cuda
