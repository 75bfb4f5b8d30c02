// Single ops; those with a backward pass run it.
#include <cmath>

#include "kernels/attention/attention.h"
#include "kernels/ops/ops.h"
#include "tests/bench/bench.h"

namespace weft::bench {
namespace {

std::shared_ptr<Machine> make_machine(const Options& options) {
  flush_denormals();
  return std::make_shared<Machine>(options.integer("threads"));
}

Body make_matmul(const Options& options) {
  auto m = make_machine(options);
  const Tensor a = m->random({options.integer("m"), options.integer("k")}, 1, false);
  const Tensor b = m->random({options.integer("k"), options.integer("n")}, 2, false);
  return [m, a, b] { ops::matmul(m->plain, a, b); };
}

Body make_attention(const Options& options) {
  auto m = make_machine(options);
  const int64_t rows = options.integer("b"), heads = options.integer("n"), t = options.integer("t");
  const int64_t features = options.integer("d");
  const DType dtype = options.flag("bf16") ? DType::kBF16 : DType::kF32;
  const bool backward = !options.flag("forward");
  const auto drawn = [&](int64_t n, uint64_t seed, bool leaf) {
    Tensor x = ops::cast(m->plain, m->random({rows, n, t, features}, seed, false), dtype).detach();
    return x.set_requires_grad(leaf);
  };
  const Tensor q = drawn(heads, 1, backward), k = drawn(options.integer("nk"), 2, backward);
  const Tensor v = drawn(options.integer("nk"), 3, backward), seed = drawn(heads, 4, false);
  attention::Parameters parameters;
  parameters.scale = 1 / std::sqrt(static_cast<double>(features));
  parameters.visibility.causal = options.flag("causal");
  if (const int64_t window = options.integer("window"); window > 0) {
    parameters.visibility.window_left = window - 1;
  }
  return [=] {
    const Tensor y = attention::scaled_dot_product(m->recording, q, k, v, parameters);
    if (!backward) return;
    m->tape.backward(m->plain, y, seed);
    for (const Tensor& x : {q, k, v}) x.set_grad(Tensor());
  };
}

Body make_layer_norm(const Options& options) {
  auto m = make_machine(options);
  const int64_t rows = options.integer("rows"), width = options.integer("width");
  const Tensor x = m->random({rows, width}, 1, true), gamma = m->random({width}, 2, true);
  const Tensor beta = m->random({width}, 3, true), seed = m->random({rows, width}, 4, false);
  return [=] {
    m->tape.backward(m->plain, ops::layer_norm(m->recording, x, gamma, beta, 1e-5), seed);
    for (const Tensor& leaf : {x, gamma, beta}) leaf.set_grad(Tensor());
  };
}

Body make_gelu(const Options& options) {
  auto m = make_machine(options);
  const Shape shape{options.integer("rows"), options.integer("width")};
  const Tensor x = m->random(shape, 1, true), seed = m->random(shape, 2, false);
  return [=] {
    m->tape.backward(m->plain, ops::activate(m->recording, x, ops::Activation::kGeluTanh), seed);
    x.set_grad(Tensor());
  };
}

Body make_cross_entropy(const Options& options) {
  auto m = make_machine(options);
  const int64_t rows = options.integer("rows"), vocabulary = options.integer("vocabulary");
  const Tensor logits = m->random({rows, vocabulary}, 1, true);
  const Tensor labels = Tensor::empty(*m->allocator, {rows}, DType::kI64);
  for (int64_t i = 0; i < rows; ++i) labels.data<int64_t>()[i] = i * 7919 % vocabulary;
  return [=] {
    m->tape.backward(m->plain, ops::cross_entropy_sum(m->recording, logits, labels));
    logits.set_grad(Tensor());
  };
}

}  // namespace

const std::map<std::string, Maker>& op_makers() {
  static const std::map<std::string, Maker> makers{{"matmul", make_matmul},
                                                   {"attention", make_attention},
                                                   {"layer_norm", make_layer_norm},
                                                   {"gelu", make_gelu},
                                                   {"cross_entropy", make_cross_entropy}};
  return makers;
}

}  // namespace weft::bench
