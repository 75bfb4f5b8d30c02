#include "tests/gpu/gpu_bench.h"

#include <cuda_profiler_api.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <memory>
#include <regex>
#include <utility>

#include "cluster/comm/single/single_communicator.h"
#include "kernels/attention/attention.h"
#include "kernels/autograd/tape.h"
#include "kernels/cuda/device.h"
#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"
#include "kernels/tensor/stream.h"
#include "proto/base/status.h"
#include "tests/bench/training_step.h"
#include "tests/gpu/repeated.h"

namespace weft::gpu {
namespace {

using Body = std::function<void()>;
constexpr int kWarmUps = 5;  // a pass is recorded the third time
constexpr int kRunsMax = 1000;

std::unique_ptr<Allocator> take_gpu() {
  auto memory = cuda::make_allocator(0);
  if (!memory) throw StatusError(memory.error());
  return std::move(*memory);
}

std::regex expression(const std::string& text) {
  try {
    return std::regex(text);
  } catch (const std::regex_error& error) {
    throw StatusError(Status::invalid("--only", text, error.what()));
  }
}

// Hands its input on as what another op has computed, and drops its gradient.
class Computed final : public ops::ForwardOp {
 public:
  std::string_view name() const override { return "computed"; }
  bool native(DType) const override { return true; }
  std::vector<Tensor> forward(Context&, std::span<const Tensor> inputs) override {
    return {inputs[0].detach()};
  }
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }
  std::vector<Tensor> vjp(Context&, std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }
};

// One GPU and what lies on it.
struct Gpu {
  const std::unique_ptr<Allocator> memory = take_gpu();
  ThreadPool pool{1};
  Tape tape;
  Context plain{*memory, pool};
  Context recording{*memory, pool, &tape};
  Repeated values{*memory};
  int64_t drawn = 0;

  Tensor random(const Shape& shape, DType dtype) {
    const Tensor x = Tensor::empty(*memory, shape);
    values.fill(x, drawn += 12'345, 1);
    return ops::cast(plain, x, dtype);
  }
  // y = forward(inputs), and the gradients of the inputs for a random cotangent. As within a layer,
  // and as torch.autograd.grad gives them to the peer, they are in the inputs' dtype and added to
  // nothing: to keep sums in fp32 is the work of whoever holds parameters.
  Body both_ways(std::vector<Tensor> inputs, const Tensor& cotangent,
                 std::function<Tensor(std::span<const Tensor>)> forward) {
    for (Tensor& input : inputs) input.set_requires_grad(true);
    return [this, inputs = std::move(inputs), cotangent, forward = std::move(forward)] {
      std::vector<Tensor> computed;
      for (const Tensor& input : inputs) {
        computed.push_back(apply_one(recording, std::make_unique<Computed>(), {input}));
      }
      tape.backward(plain, forward(computed), cotangent);
    };
  }
};

// What is measured of the rows that are asked for.
class Stand {
 public:
  Stand(const BenchOptions& options, const std::function<void(const Measure&)>& row)
      : options_(options), row_(row), only_(expression(options.only)) {}

  int64_t size(int64_t usual, int64_t smallest) const {
    return options_.smallest ? smallest : usual;
  }
  bool smallest() const { return options_.smallest; }
  bool repeatable() const { return !options_.any_order; }
  Gpu& gpu() {
    if (!gpu_) {
      gpu_ = std::make_unique<Gpu>();
      gpu_->plain.repeatable = gpu_->recording.repeatable = repeatable();
    }
    return *gpu_;
  }

  // Times what make() returns. work: what one run does, in the unit's 1e-12 (TFLOP/s), 1e-9 (GB/s)
  // or 1 (tokens/s). `more` completes the measure.
  void time(const std::string& name, double work, const std::string& unit,
            const std::function<Body(Gpu&)>& make, const std::function<void(Measure&)>& more = {}) {
    if (!std::regex_search(name, only_)) return;
    Measure measure{.name = name, .unit = unit};
    if (!options_.list) {
      Gpu& gpu = this->gpu();
      try {
        const Body body = make(gpu);
        measure.samples = samples_of(*gpu.memory->stream(), body);
        std::vector<double> sorted = measure.samples;
        std::sort(sorted.begin(), sorted.end());
        measure.seconds = sorted[sorted.size() / 2];
        measure.rate = work / measure.seconds;
        if (more) more(measure);
      } catch (const StatusError& error) {
        measure.error = error.what();
      }
    }
    row_(measure);
  }

 private:
  // Steps have a stream of their own, and wait for it. A GPU that was idle takes a while to reach
  // its clock.
  std::vector<double> samples_of(Stream& stream, const Body& body) {
    const auto seconds = [&](int runs) {
      stream.synchronize();
      const auto start = std::chrono::steady_clock::now();
      for (int run = 0; run < runs; ++run) body();
      stream.synchronize();
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      return took.count() / runs;
    };
    const double least = (warm_ ? 1 : 10) * options_.sample_seconds;
    warm_ = true;
    for (double took = 0; took < least;) took += kWarmUps * seconds(kWarmUps);
    if (options_.profile) {
      (void)cudaProfilerStart();
      const double once = seconds(1);
      (void)cudaProfilerStop();
      return {once};
    }
    const double once = std::max(1e-9, seconds(2));
    const auto runs =
        static_cast<int>(std::clamp(options_.sample_seconds / once, 1., 1. * kRunsMax));
    std::vector<double> samples;
    for (int sample = 0; sample < options_.runs; ++sample) samples.push_back(seconds(runs));
    return samples;
  }

  const BenchOptions& options_;
  const std::function<void(const Measure&)>& row_;
  const std::regex only_;
  std::unique_ptr<Gpu> gpu_;
  bool warm_ = false;
};

constexpr std::array kDTypes{DType::kBF16, DType::kF32};

std::string text(DType dtype) { return std::string(dtype_name(dtype)); }

std::string times(std::initializer_list<int64_t> extents) {
  std::string all;
  for (const int64_t extent : extents) all += (all.empty() ? "" : "x") + std::to_string(extent);
  return all;
}

void bench_products(Stand& stand) {
  const int64_t rows = stand.size(8192, 32), hidden = stand.size(768, 16);
  for (const DType dtype : kDTypes) {
    for (const auto& [in, out] : {std::pair{hidden, 4 * hidden},
                                  {4 * hidden, hidden},
                                  {hidden, 3 * hidden},
                                  {hidden, 64 * hidden},
                                  {rows, rows}}) {
      const double work = 2.0 * static_cast<double>(rows * in * out) * 1e-12;
      stand.time("product " + text(dtype) + " " + times({rows, in, out}), work, "TFLOP/s",
                 [&](Gpu& gpu) -> Body {
                   return [&gpu, x = gpu.random({rows, in}, dtype),
                           weight = gpu.random({in, out}, dtype)] {
                     ops::matmul(gpu.plain, x, weight);
                   };
                 });
    }
  }
}

struct AttentionRow {
  DType dtype;
  int64_t rows, heads, tokens, features;
  bool causal;

  std::string name() const {
    return "attention " + text(dtype) + " " + times({heads, features}) +
           " T=" + std::to_string(tokens) + (causal ? " causal" : "");
  }
  // Of the product of queries and keys, what causality hides left out.
  double product() const {
    const double pairs = static_cast<double>(tokens * tokens) * (causal ? 0.5 : 1.0);
    return 2.0 * pairs * static_cast<double>(rows * heads * features) * 1e-12;
  }
  Body body(Gpu& gpu, bool backward) const {
    const Shape shape{rows, heads, tokens, features};
    const Tensor q = gpu.random(shape, dtype), k = gpu.random(shape, dtype);
    const Tensor v = gpu.random(shape, dtype);
    attention::Parameters parameters;
    parameters.scale = 1 / std::sqrt(static_cast<double>(features));
    parameters.visibility.causal = causal;
    if (!backward) {
      return [=, &gpu] { attention::scaled_dot_product(gpu.plain, q, k, v, parameters); };
    }
    return gpu.both_ways({q, k, v}, gpu.random(shape, dtype), [=, &gpu](auto inputs) {
      return attention::scaled_dot_product(gpu.recording, inputs[0], inputs[1], inputs[2],
                                           parameters);
    });
  }
};

// 16,384 tokens in rows of T, 16 heads of 64 and, of halves, 128 features.
void bench_attention(Stand& stand) {
  for (const DType dtype : kDTypes) {
    for (const int64_t features : {stand.size(64, 16), stand.size(128, 32)}) {
      if (dtype == DType::kF32 && features == 128) break;
      for (const int64_t usual : {512, 1024, 2048, 4096, 8192}) {
        if (stand.smallest() && usual > 512) break;
        for (const bool causal : {true, false}) {
          const AttentionRow row{dtype,
                                 stand.size(16384 / usual, 1),
                                 stand.size(16, 2),
                                 stand.size(usual, 32),
                                 features,
                                 causal};
          stand.time(row.name() + " forward", 2 * row.product(), "TFLOP/s",
                     [&](Gpu& gpu) { return row.body(gpu, false); });
          stand.time(row.name() + " both ways", 7 * row.product(), "TFLOP/s",
                     [&](Gpu& gpu) { return row.body(gpu, true); });
        }
      }
    }
  }
}

// What only moves bytes, beside a copy; more of them than a GPU's cache holds.
void bench_bytes_of(Stand& stand, int64_t rows, int64_t width) {
  using Function = std::function<Tensor(Context&, const Tensor& x, const Tensor& gamma)>;
  const std::vector<std::pair<std::string, Function>> functions = {
      {"gelu", [](Context& cx, const Tensor& x,
                  const Tensor&) { return ops::activate(cx, x, ops::Activation::kGeluTanh); }},
      {"layer_norm",
       [](Context& cx, const Tensor& x, const Tensor& gamma) {
         return ops::layer_norm(cx, x, gamma, gamma, 1e-5);
       }},
      {"softmax",
       [](Context& cx, const Tensor& x, const Tensor&) { return ops::softmax(cx, x, -1); }}};
  for (const DType dtype : kDTypes) {
    const double bytes =
        static_cast<double>(rows * width) * static_cast<double>(size_of(dtype)) * 1e-9;
    const std::string size = " " + text(dtype) + " " + times({rows, width});
    stand.time("copy" + size, 2 * bytes, "GB/s", [&](Gpu& gpu) -> Body {
      return [&gpu, x = gpu.random({rows, width}, dtype),
              to = Tensor::empty(*gpu.memory, {rows, width}, dtype)] {
        gpu.memory->stream()->copy(x, to);
      };
    });
    for (const auto& [name, function] : functions) {
      // Forwards a read and a write; backwards two reads and a write.
      stand.time(name + size + " forward", 2 * bytes, "GB/s", [&](Gpu& gpu) -> Body {
        return [&gpu, function, x = gpu.random({rows, width}, dtype),
                gamma = gpu.random({width}, DType::kF32)] { function(gpu.plain, x, gamma); };
      });
      stand.time(name + size + " both ways", 5 * bytes, "GB/s", [&](Gpu& gpu) {
        const Tensor x = gpu.random({rows, width}, dtype), gamma = gpu.random({width}, DType::kF32);
        return gpu.both_ways({x, gamma}, gpu.random({rows, width}, dtype), [=, &gpu](auto inputs) {
          return function(gpu.recording, inputs[0], inputs[1]);
        });
      });
    }
  }
}

// The same bytes in rows that two warps take, one and four.
void bench_bytes(Stand& stand) {
  if (stand.smallest()) return bench_bytes_of(stand, 8, 32);
  for (const int64_t width : {3072, 768, 8192}) {
    bench_bytes_of(stand, int64_t{32768} * 3072 / width, width);
  }
}

struct Model {
  std::string name;
  int64_t layers, heads, hidden, vocabulary;
};

// Whole steps of a batch, first with each pass as it is, then with recorded ones.
void bench_step(Stand& stand, const Model& model, DType dtype, int64_t batch, int64_t tokens) {
  const bench::Options options({{"threads", "1"},
                                {"layers", std::to_string(model.layers)},
                                {"heads", std::to_string(model.heads)},
                                {"hidden", std::to_string(model.hidden)},
                                {"vocabulary", std::to_string(model.vocabulary)},
                                {"tokens", std::to_string(tokens)},
                                {"batch", std::to_string(batch)},
                                {"dropout", "0.0"},
                                {"bf16", dtype == DType::kBF16 ? "1" : "0"}});
  std::shared_ptr<bench::TrainingStep> step;
  std::vector<double> losses;
  for (const bool recorded : {false, true}) {
    const auto make = [&](Gpu&) -> Body {
      if (!step) {
        auto mesh = Mesh::create(comm::single_world(), MeshDegrees{});
        if (!mesh) throw StatusError(mesh.error());
        std::unique_ptr<Allocator> memory = take_gpu();
        Allocator& own = *memory;
        step = std::make_shared<bench::TrainingStep>(
            options, std::move(*mesh), std::move(memory),
            [&](std::span<Parameter> parameters) { Repeated(own).fill(parameters); });
      }
      step->set_recorded(recorded);
      step->rank().repeatable = stand.repeatable();
      step->rank().allocator->reset_peak();
      return [&step, &losses] {
        step->run();
        if (losses.size() < kWarmUps) losses.push_back(step->loss());
        step->rank().allocator->stream()->synchronize();
      };
    };
    stand.time("gpt2 " + model.name + " " + text(dtype) + " B=" + std::to_string(batch) +
                   " T=" + std::to_string(tokens) + (recorded ? " graphs" : " eager"),
               static_cast<double>(batch * tokens), "tokens/s", make, [&](Measure& measure) {
                 measure.losses = losses;
                 measure.peak_bytes = step->rank().allocator->stats().peak_bytes;
                 if (recorded && step->replayed() == 0) measure.error = "no pass was recorded";
               });
  }
}

void bench_steps(Stand& stand) {
  const auto model = [&](std::string name, int64_t layers, int64_t heads, int64_t hidden) {
    if (stand.smallest()) return Model{std::move(name), 2, 2, 32, 64};
    return Model{std::move(name), layers, heads, hidden, 50257};
  };
  const Model small = model("124M", 12, 12, 768), large = model("1.5B", 48, 25, 1600);
  for (const DType dtype : kDTypes) {
    for (const auto& [batch, tokens] : {std::pair{8, 1024}, {32, 256}}) {
      if (!stand.smallest()) bench_step(stand, small, dtype, batch, tokens);
    }
    if (stand.smallest()) bench_step(stand, small, dtype, 2, 16);
  }
  for (const int64_t batch : {4, 8}) {
    bench_step(stand, large, DType::kBF16, stand.size(batch, batch / 4), stand.size(1024, 16));
  }
}

}  // namespace

void run_bench(const BenchOptions& options, const std::function<void(const Measure&)>& row) {
  Stand stand(options, row);
  bench_products(stand);
  bench_attention(stand);
  bench_bytes(stand);
  bench_steps(stand);
}

}  // namespace weft::gpu
