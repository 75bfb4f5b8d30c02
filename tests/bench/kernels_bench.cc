// Rates of the hot kernels at GPT-2's shapes: products, attention, norms, activations, the loss,
// and one block of a transformer, forward and backward. WEFT_THREADS sets the pool's size (2).
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdlib>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/autograd/tape.h"
#include "kernels/cpu/tiles.h"
#include "kernels/ops/ops.h"

namespace weft {
namespace {

int threads() {
  const char* text = std::getenv("WEFT_THREADS");
  return text == nullptr ? 2 : std::atoi(text);
}

struct Machine {
  std::unique_ptr<Allocator> allocator = make_caching_allocator();
  ThreadPool pool{threads()};
  Tape tape;
  Context plain{*allocator, pool};
  Context recording{*allocator, pool, &tape};

  Tensor random(Shape shape, bool leaf = false) {
    Tensor x = Tensor::empty(*allocator, shape);
    for (int64_t i = 0; i < x.elements(); ++i) {
      x.data<float>()[i] = 0.05F * (uniform_at({1, 2}, static_cast<uint64_t>(i)) - 0.5F);
    }
    return x.set_requires_grad(leaf);
  }
};

void set_rate(benchmark::State& state, double flops) {
  state.counters["GFLOP/s"] =
      benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void set_bandwidth(benchmark::State& state, double bytes) {
  state.counters["GB/s"] =
      benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

// Arguments: rows, in, out.
void linear_forward(benchmark::State& state) {
  Machine m;
  const Tensor x = m.random({state.range(0), state.range(1)});
  const Tensor w = m.random({state.range(1), state.range(2)}), b = m.random({state.range(2)});
  for (auto _ : state) ops::linear(m.plain, x, w, b, ops::WeightLayout::kInOut);
  set_rate(state, 2.0 * static_cast<double>(state.range(0) * state.range(1) * state.range(2)));
}
BENCHMARK(linear_forward)
    ->Args({256, 768, 3072})
    ->Args({1024, 768, 768})
    ->Args({512, 128, 512})
    ->UseRealTime();

// The products that attention is made of, on a tile of 64 keys in the first-level cache: the floor
// of attention. Argument: features.
template <typename In>
void tile_products(benchmark::State& state) {
  constexpr int64_t kKeys = 64, kQueries = cpu::kTileLanes;
  const int64_t features = state.range(0);
  const cpu::TileKernels<In>& tiles = cpu::tiles<In>(features);
  const size_t bytes = static_cast<size_t>(kQueries * features * tiles.word_bytes);
  const std::vector<uint8_t> left(bytes), right(bytes);
  std::vector<float> out(static_cast<size_t>(kQueries * features));
  const cpu::Operand rows{left.data(), features / tiles.step * tiles.word_bytes};
  const cpu::Operand columns{left.data(), features * tiles.word_bytes};
  for (auto _ : state) {
    tiles.scores(kKeys, features, 1.0F, rows, right.data(), out.data());
    tiles.collect(features, kKeys, columns, right.data(), false, nullptr, out.data());
    tiles.spread(kKeys, features, left.data(), right.data(), false, out.data());
    benchmark::ClobberMemory();
  }
  set_rate(state, 3 * 2.0 * static_cast<double>(kKeys * kQueries * features));
}
BENCHMARK(tile_products<float>)->Arg(64)->Arg(128);
BENCHMARK(tile_products<bfloat16>)->Arg(64)->Arg(128);

// Arguments: batch rows, tokens, heads, features, causal.
void attention_step(benchmark::State& state) {
  Machine m;
  const int64_t rows = state.range(0), tokens = state.range(1), heads = state.range(2);
  const int64_t features = state.range(3);
  const bool causal = state.range(4) != 0, backward = state.range(5) != 0;
  const Shape shape{rows, heads, tokens, features};
  const Tensor q = m.random(shape, true), k = m.random(shape, true), v = m.random(shape, true);
  attention::Parameters p;
  p.scale = 1 / std::sqrt(static_cast<double>(features));
  p.visibility.causal = causal;
  for (auto _ : state) {
    const Tensor y = attention::scaled_dot_product(backward ? m.recording : m.plain, q, k, v, p);
    if (backward) m.tape.backward(m.recording, y);
  }
  const double pairs = static_cast<double>(rows * heads * tokens * tokens) * (causal ? 0.5 : 1);
  set_rate(state, (backward ? 14.0 : 4.0) * pairs * static_cast<double>(features));
}
BENCHMARK(attention_step)
    ->ArgNames({"B", "T", "N", "D", "causal", "backward"})
    ->Args({1, 1024, 12, 64, 1, 0})
    ->Args({1, 1024, 12, 64, 1, 1})
    ->Args({1, 2048, 12, 64, 0, 0})
    ->Args({1, 2048, 12, 64, 0, 1})
    ->Args({8, 128, 4, 32, 1, 1})
    ->UseRealTime();

void gelu_step(benchmark::State& state) {
  Machine m;
  const Tensor x = m.random({state.range(0)}, true);
  for (auto _ : state) {
    m.tape.backward(m.recording, ops::activate(m.recording, x, ops::Activation::kGeluTanh));
  }
  set_bandwidth(state, 5.0 * 4 * static_cast<double>(state.range(0)));
}
BENCHMARK(gelu_step)->Arg(256 * 3072)->UseRealTime();

void layer_norm_step(benchmark::State& state) {
  Machine m;
  const int64_t rows = state.range(0), width = state.range(1);
  const Tensor x = m.random({rows, width}, true), gamma = m.random({width}, true);
  const Tensor beta = m.random({width}, true);
  for (auto _ : state) {
    m.tape.backward(m.recording, ops::layer_norm(m.recording, x, gamma, beta, 1e-5));
  }
  set_bandwidth(state, 5.0 * 4 * static_cast<double>(rows * width));
}
BENCHMARK(layer_norm_step)->Args({1024, 768})->UseRealTime();

void cross_entropy_step(benchmark::State& state) {
  Machine m;
  const int64_t rows = state.range(0), vocabulary = state.range(1);
  const Tensor x = m.random({rows, vocabulary}, true);
  const Tensor labels = Tensor::full(*m.allocator, {rows}, 7, DType::kI64);
  for (auto _ : state) {
    m.tape.backward(m.recording, ops::cross_entropy_sum(m.recording, x, labels));
    x.set_grad(Tensor());
  }
  set_bandwidth(state, 4.0 * 4 * static_cast<double>(rows * vocabulary));
}
BENCHMARK(cross_entropy_step)->Args({256, 50257})->UseRealTime();

void dropout_forward(benchmark::State& state) {
  Machine m;
  const Tensor x = m.random({state.range(0), 768});
  for (auto _ : state) {
    ops::dropout(m.plain, x, 0.1, {1, 2}, {x.shape(), {0, 0}});
  }
  set_bandwidth(state, 2.0 * 4 * static_cast<double>(state.range(0) * 768));
}
BENCHMARK(dropout_forward)->Arg(256)->UseRealTime();

// A pre-norm block (attention, then a four times wider layer), forward and backward.
void transformer_block_step(benchmark::State& state) {
  Machine m;
  const int64_t rows = state.range(0), tokens = state.range(1), width = state.range(2);
  const int64_t heads = state.range(3), features = width / heads;
  const Tensor x = m.random({rows, tokens, width}, true), g = m.random({width}, true);
  const Tensor w_qkv = m.random({width, 3 * width}, true), b_qkv = m.random({3 * width}, true);
  const Tensor w_out = m.random({width, width}, true), b = m.random({width}, true);
  const Tensor w_up = m.random({width, 4 * width}, true), b_up = m.random({4 * width}, true);
  const Tensor w_down = m.random({4 * width, width}, true);
  attention::Parameters p;
  p.scale = 1 / std::sqrt(static_cast<double>(features));
  p.visibility.causal = true;
  const std::vector<int64_t> thirds(3, width);
  const std::vector<int> turned = {0, 2, 1, 3};
  Context& cx = m.recording;
  const auto layout = ops::WeightLayout::kInOut;
  for (auto _ : state) {
    std::vector<Tensor> qkv = ops::split(
        cx, ops::linear(cx, ops::layer_norm(cx, x, g, b, 1e-5), w_qkv, b_qkv, layout), -1, thirds);
    for (Tensor& part : qkv) {
      part = ops::permute(cx, ops::reshape(cx, part, {rows, tokens, heads, features}), turned);
    }
    Tensor y = attention::scaled_dot_product(cx, qkv[0], qkv[1], qkv[2], p);
    y = ops::reshape(cx, ops::permute(cx, y, turned), {rows, tokens, width});
    const Tensor middle = ops::add(cx, x, ops::linear(cx, y, w_out, b, layout));
    Tensor up = ops::linear(cx, ops::layer_norm(cx, middle, g, b, 1e-5), w_up, b_up, layout);
    up = ops::activate(cx, up, ops::Activation::kGeluTanh);
    m.tape.backward(cx, ops::add(cx, middle, ops::linear(cx, up, w_down, b, layout)));
  }
  const double tokens_all = static_cast<double>(rows * tokens), wide = static_cast<double>(width);
  set_rate(state, tokens_all * (72 * wide * wide + 7 * static_cast<double>(tokens) * wide));
}
BENCHMARK(transformer_block_step)
    ->ArgNames({"B", "T", "H", "N"})
    ->Args({4, 64, 768, 12})
    ->Args({1, 1024, 768, 12})
    ->Args({4, 128, 128, 4})
    ->UseRealTime();

}  // namespace
}  // namespace weft

BENCHMARK_MAIN();
