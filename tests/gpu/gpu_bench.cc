#include "tests/gpu/gpu_bench.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <memory>
#include <vector>

#include "cluster/comm/single/single_communicator.h"
#include "kernels/attention/attention.h"
#include "kernels/autograd/tape.h"
#include "kernels/cuda/device.h"
#include "kernels/ops/ops.h"
#include "kernels/tensor/stream.h"
#include "proto/base/status.h"
#include "tests/bench/training_step.h"

namespace weft::gpu {
namespace {

std::unique_ptr<Allocator> take_gpu() {
  auto memory = cuda::make_allocator(0);
  if (!memory) throw StatusError(memory.error());
  return std::move(*memory);
}

// One GPU, and what is timed on it.
class Stand {
 public:
  Stand(const BenchOptions& options, const std::function<void(const Measure&)>& row)
      : options_(options), row_(row) {}

  Context& plain() { return plain_; }
  Context& recording() { return recording_; }
  Tape& tape() { return tape_; }
  int64_t size(int64_t usual, int64_t smallest) const {
    return options_.smallest ? smallest : usual;
  }

  // Standard normal values, the same ones again and again: a million are drawn.
  Tensor random(const Shape& shape, DType dtype) {
    const int64_t drawn = std::min<int64_t>(shape.elements(), int64_t{1} << 20);
    std::vector<float> values(static_cast<size_t>(shape.elements()));
    for (int64_t i = 0; i < shape.elements(); ++i) {
      values[static_cast<size_t>(i)] =
          i < drawn ? static_cast<float>(normal_at({7, 1}, static_cast<uint64_t>(i)))
                    : values[static_cast<size_t>(i - drawn)];
    }
    return ops::cast(plain_, Tensor::from<float>(*memory_, shape, values), dtype);
  }

  // The median time of `body`, waited for; work: what one run does, in the unit's 1e-12 (TFLOP/s),
  // 1e-9 (GB/s) or 1 (tokens/s).
  void time(const std::string& name, double work, const std::string& unit,
            const std::function<void()>& body) {
    std::vector<double> times;
    for (int run = -1; run < options_.runs; ++run) {
      const auto start = std::chrono::steady_clock::now();
      body();
      memory_->stream()->synchronize();
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      if (run >= 0) times.push_back(took.count());
    }
    std::sort(times.begin(), times.end());
    const double median = times[times.size() / 2];
    row_({name, median, work / median, unit});
  }

 private:
  const BenchOptions options_;
  const std::function<void(const Measure&)>& row_;
  const std::unique_ptr<Allocator> memory_ = take_gpu();
  ThreadPool pool_{1};
  Tape tape_;
  Context plain_{*memory_, pool_};
  Context recording_{*memory_, pool_, &tape_};
};

constexpr std::array kDTypes{DType::kBF16, DType::kF32};

void bench_products(Stand& stand) {
  const int64_t rows = stand.size(8192, 32), hidden = stand.size(768, 16);
  for (const DType dtype : kDTypes) {
    for (const auto& [in, out] : {std::pair{hidden, 4 * hidden},
                                  {4 * hidden, hidden},
                                  {hidden, 3 * hidden},
                                  {hidden, 64 * hidden}}) {
      const Tensor x = stand.random({rows, in}, dtype), weight = stand.random({in, out}, dtype);
      const double work = 2.0 * static_cast<double>(rows * in * out) * 1e-12;
      stand.time("product " + std::string(dtype_name(dtype)) + " " + std::to_string(rows) + "x" +
                     std::to_string(in) + "x" + std::to_string(out),
                 work, "TFLOP/s", [&] { ops::matmul(stand.plain(), x, weight); });
    }
  }
}

// 16,384 tokens in rows of T, 16 heads of 64 features.
void bench_attention(Stand& stand) {
  for (const DType dtype : kDTypes) {
    for (const int64_t usual : {512, 1024, 2048, 4096, 8192}) {
      for (const bool causal : {true, false}) {
        const int64_t tokens = stand.size(usual, 32), heads = stand.size(16, 2);
        const int64_t rows = stand.size(16384 / usual, 1), features = stand.size(64, 16);
        const Shape shape{rows, heads, tokens, features};
        Tensor q = stand.random(shape, dtype), k = stand.random(shape, dtype);
        Tensor v = stand.random(shape, dtype);
        const Tensor cotangent = stand.random(shape, dtype);
        attention::Parameters parameters;
        parameters.scale = 1 / std::sqrt(static_cast<double>(features));
        parameters.visibility.causal = causal;
        const double pairs = static_cast<double>(tokens * tokens) * (causal ? 0.5 : 1.0);
        const double product = 2.0 * pairs * static_cast<double>(rows * heads * features) * 1e-12;
        const std::string name = "attention " + std::string(dtype_name(dtype)) +
                                 " T=" + std::to_string(tokens) + (causal ? " causal" : "");
        stand.time(name + " forward", 2 * product, "TFLOP/s",
                   [&] { attention::scaled_dot_product(stand.plain(), q, k, v, parameters); });
        for (Tensor* each : {&q, &k, &v}) each->set_requires_grad(true);
        stand.time(name + " both ways", 7 * product, "TFLOP/s", [&] {
          const Tensor y = attention::scaled_dot_product(stand.recording(), q, k, v, parameters);
          stand.tape().backward(stand.plain(), y, cotangent);
          for (const Tensor* each : {&q, &k, &v}) each->set_grad(Tensor());
        });
        if (stand.size(1, 0) == 0) return;
      }
    }
  }
}

// What only moves bytes, beside a copy.
void bench_bytes(Stand& stand) {
  const int64_t rows = stand.size(8192, 8), width = stand.size(3072, 32);
  for (const DType dtype : kDTypes) {
    const Tensor x = stand.random({rows, width}, dtype), gamma = stand.random({width}, dtype);
    const double bytes = static_cast<double>(x.bytes()) * 1e-9;
    const std::string type(dtype_name(dtype));
    const Tensor target = Tensor::empty(stand.plain().allocator, x.shape(), dtype);
    stand.time("copy " + type, 2 * bytes, "GB/s", [&] { stand.plain().stream()->copy(x, target); });
    stand.time("gelu " + type, 2 * bytes, "GB/s",
               [&] { ops::activate(stand.plain(), x, ops::Activation::kGeluTanh); });
    stand.time("layer_norm " + type, 2 * bytes, "GB/s",
               [&] { ops::layer_norm(stand.plain(), x, gamma, gamma, 1e-5); });
    stand.time("softmax " + type, 2 * bytes, "GB/s", [&] { ops::softmax(stand.plain(), x, -1); });
  }
}

// GPT-2 124M, whole steps.
void bench_step(Stand& stand) {
  for (const bool half : {true, false}) {
    for (const auto& [batch, tokens] : {std::pair{8, 1024}, {32, 256}}) {
      const auto text = [&](int64_t usual, int64_t smallest) {
        return std::to_string(stand.size(usual, smallest));
      };
      const bench::Options options({{"threads", "1"},
                                    {"layers", text(12, 1)},
                                    {"heads", text(12, 2)},
                                    {"hidden", text(768, 32)},
                                    {"vocabulary", text(50257, 64)},
                                    {"tokens", text(tokens, 16)},
                                    {"batch", text(batch, 2)},
                                    {"dropout", "0.0"},
                                    {"bf16", half ? "1" : "0"}});
      auto mesh = Mesh::create(comm::single_world(), MeshDegrees{});
      if (!mesh) throw StatusError(mesh.error());
      bench::TrainingStep step(options, std::move(*mesh), take_gpu());
      const double per_step =
          static_cast<double>(options.integer("batch") * options.integer("tokens"));
      stand.time(std::string("gpt2 step ") + (half ? "BF16" : "F32") +
                     " B=" + options.text("batch") + " T=" + options.text("tokens"),
                 per_step, "tokens/s", [&] { step.run(); });
      if (stand.size(1, 0) == 0) break;
    }
  }
}

}  // namespace

void run_bench(const BenchOptions& options, const std::function<void(const Measure&)>& row) {
  Stand stand(options, row);
  bench_products(stand);
  bench_attention(stand);
  bench_bytes(stand);
  bench_step(stand);
}

}  // namespace weft::gpu
