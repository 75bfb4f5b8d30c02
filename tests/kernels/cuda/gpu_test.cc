// The host side of a GPU: its memory, its stream, pinned memory, and products with what is fused
// into them.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "kernels/cuda/device.h"
#include "kernels/cuda/gpu.h"
#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"
#include "kernels/tensor/transfer.h"
#include "tests/testing/cuda_on_cpu/streams.h"

namespace weft::cuda {
namespace {

std::unique_ptr<Allocator> take_gpu() {
  auto memory = make_allocator(0);
  EXPECT_TRUE(memory) << (memory ? "" : memory.error().to_string());
  return std::move(*memory);
}

TEST(Gpus, AreCountedAndNamed) {
  EXPECT_EQ(device_count().value(), 1);
  const auto second = make_allocator(1);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().message(), "no GPU 1: this process sees 1");
  EXPECT_EQ(take_gpu()->device().to_string(), "cuda:0");
}

TEST(GpuMemory, AsksTheDriverOnlyForWhatItHasNotSeen) {
  const auto memory = take_gpu();
  ThreadPool pool(1);
  Context cx{*memory, pool};
  const auto step = [&] {
    Tensor x = Tensor::full(*memory, {50, 40}, 2);
    for (int i = 0; i < 4; ++i) x = ops::multiply(cx, ops::add(cx, x, x), x);
    return read_scalar(ops::sum_all(cx, x));
  };
  const double first = step();
  step();
  const int64_t calls = memory->stats().system_calls;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(step(), first);
  EXPECT_EQ(memory->stats().system_calls, calls);
  EXPECT_EQ(memory->stats().live_bytes, 0);
  EXPECT_GT(memory->stats().peak_bytes, 2 * 50 * 40 * 4);
}

TEST(GpuMemory, IsGivenBack) {
  const size_t before = cuda_on_cpu::alive().allocations, streams = cuda_on_cpu::alive().streams;
  {
    const auto memory = take_gpu();
    const Tensor x = Tensor::full(*memory, {100}, 1);
    EXPECT_GT(cuda_on_cpu::alive().allocations, before);
  }
  EXPECT_EQ(cuda_on_cpu::alive().allocations, before);
  EXPECT_EQ(cuda_on_cpu::alive().streams, streams);
}

TEST(GpuMemory, RefusalNamesTheGpu) {
  const auto memory = take_gpu();
  try {
    Tensor::empty(*memory, {int64_t{1} << 40});
    FAIL() << "no refusal";
  } catch (const StatusError& error) {
    EXPECT_EQ(error.status().code(), Code::kResourceExhausted);
    EXPECT_EQ(error.status().message().find("cuda:0 refuses"), 0U);
  }
}

TEST(Uploads, TakeTheValuesOfTheirTime) {
  const auto memory = take_gpu();
  std::vector<float> host(3 << 20, 1);  // several pieces
  const Tensor there = Tensor::from<float>(*memory, {3 << 20}, host);
  std::fill(host.begin(), host.end(), 9.0F);  // before the stream got there
  const std::vector<float> back = there.to_vector<float>();
  EXPECT_TRUE(std::all_of(back.begin(), back.end(), [](float x) { return x == 1; }));
}

TEST(RowsOfATable, AreAddedAsOnTheCpu) {
  const auto memory = take_gpu();
  const auto host = make_caching_allocator();
  ThreadPool pool(1);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    std::vector<std::vector<float>> sums;
    for (Allocator* where : std::initializer_list<Allocator*>{host.get(), memory.get()}) {
      Context cx{*where, pool};
      std::vector<float> values(5 * 6), held(50);
      for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i));
      for (size_t i = 0; i < held.size(); ++i) held[i] = std::cos(static_cast<float>(i));
      const std::vector<int64_t> ids = {23, 12, 23, 999, 21};
      const Tensor rows = ops::cast(cx, Tensor::from<float>(*where, {5, 6}, values), dtype);
      const Tensor elements = Tensor::from<float>(*where, {50}, held);
      // The elements from 9 on of the table whose first row is 20: its row 1 is in them in part.
      ops::add_rows(cx, {0, Tensor::from<int64_t>(*where, {5}, ids), rows, 20}, 9, elements);
      sums.push_back(elements.to_vector<float>());
    }
    ASSERT_NE(sums[0][0], 1.0F);
    for (size_t i = 0; i < sums[0].size(); ++i) {
      EXPECT_NEAR(sums[1][i], sums[0][i], 1e-6) << dtype_name(dtype) << " at " << i;
    }
  }
}

TEST(PinnedMemory, IsPinned) {
  const auto pinned = make_pinned_allocator();
  const Tensor host = Tensor::from<float>(*pinned, {3}, std::vector<float>{1, 2, 3});
  EXPECT_TRUE(host.device().is_cpu());
  EXPECT_TRUE(cuda_on_cpu::is_pinned(host.raw()));
}

// y = dropout(2 x + 1), and the sum of y, as a pass would compute it.
class Recordings : public ::testing::Test {
 protected:
  std::vector<Tensor> compute(uint64_t seed) {
    Context cx{*memory_, pool_};
    const Tensor x = ops::scale(cx, x_, 2), y = ops::add(cx, x, Tensor::full(*memory_, {1}, 1));
    const Tensor dropped = ops::dropout(cx, y, 0.5, {seed, 3}, {{kCount}, {0}});
    return {dropped, ops::sum_all(cx, dropped)};
  }
  std::vector<float> eager(uint64_t seed) {
    std::vector<float> y;
    gpu_.in_pass([&] { y = compute(seed)[0].to_vector<float>(); });
    return y;
  }
  Result<std::unique_ptr<Recording>> record(uint64_t seed) {
    return gpu_.record(seed, [&] { return compute(seed); });
  }
  void set(float value) { upload(x_, std::vector<float>(kCount, value).data()); }

  static constexpr int64_t kCount = 700;
  const std::unique_ptr<Allocator> memory_ = take_gpu();
  Gpu& gpu_ = static_cast<Gpu&>(*memory_->stream());
  ThreadPool pool_{1};
  const Tensor x_ = Tensor::full(*memory_, {kCount}, 1);
};

TEST_F(Recordings, ComputeAnewWhatTheyAreQueuedFor) {
  eager(11);
  auto recording = record(11);
  ASSERT_TRUE(recording) << recording.error().to_string();
  void* place = nullptr;
  for (const uint64_t seed : {11, 11, 12, 99}) {
    set(static_cast<float>(seed));
    const std::vector<float> expected = eager(seed);
    std::vector<Tensor> results;
    ASSERT_TRUE((*recording)->queue(seed, results));
    EXPECT_EQ(results[0].to_vector<float>(), expected);
    double sum = 0;
    for (const float value : expected) sum += double{value};
    EXPECT_NEAR(read_scalar(results[1]), sum, 1e-3 * sum);
    if (place == nullptr) place = results[0].raw();
    EXPECT_EQ(results[0].raw(), place);
  }
  EXPECT_NE(eager(11), eager(12));
}

// The work is kept, not done, and its memory is free until it is queued.
TEST_F(Recordings, WaitUntilTheirMemoryIsFree) {
  eager(1);
  auto recording = record(1);
  ASSERT_TRUE(recording) << recording.error().to_string();
  std::vector<Tensor> results, more;
  ASSERT_TRUE((*recording)->queue(1, results));
  EXPECT_FALSE((*recording)->queue(1, more));  // the results of before are in use
  EXPECT_TRUE(more.empty());
  const std::vector<float> y = results[0].to_vector<float>();
  results.clear();
  std::vector<Tensor> others;
  gpu_.in_pass([&] { others = {Tensor::full(*memory_, {3 * kCount}, 7)}; });
  EXPECT_FALSE((*recording)->queue(1, results));
  EXPECT_EQ(others[0].to_vector<float>()[0], 7);
  others.clear();
  const Tensor lasting = Tensor::full(*memory_, {3 * kCount}, 7);  // not of a pass
  ASSERT_TRUE((*recording)->queue(1, results));
  EXPECT_EQ(results[0].to_vector<float>(), y);
  EXPECT_EQ(lasting.to_vector<float>()[0], 7);
}

TEST_F(Recordings, AreRefusedWhereTheHostTakesPart) {
  eager(1);
  const auto refusal = [&](const std::function<void()>& middle) {
    const auto recording = gpu_.record(1, [&] {
      std::vector<Tensor> results = compute(1);
      middle();
      return results;
    });
    return recording ? "none" : recording.error().message();
  };
  const float one = 1;
  EXPECT_EQ(refusal([] {}), "none");
  EXPECT_EQ(refusal([&] { read_scalar(x_.view({1}, std::array<int64_t, 1>{1}, 0)); }),
            "a wait for the GPU in the middle of it");
  EXPECT_EQ(refusal([&] { gpu_.upload(x_.raw(), &one, sizeof one); }),
            "an upload in the middle of it");
  EXPECT_EQ(refusal([&] { Tensor::empty(*memory_, {1 << 24}); }),
            "memory that is still to be reserved");
  // Whatever asks the stream behind our back.
  EXPECT_NE(refusal([&] { (void)cudaStreamQuery(gpu_.stream()); }), "none");
  EXPECT_EQ(eager(1), eager(1));  // and all goes on
  EXPECT_EQ(cuda_on_cpu::capture_forbids_calls(), false);
}

// Of the products with the samples' gradients a few are there at once, however many samples.
TEST(GpuMemory, WeightsOfAConvolutionAreSummedByPieces) {
  const auto memory = take_gpu();
  const cpu::ConvolutionSizes sizes{.samples = 64,
                                    .channels = 8,
                                    .out_channels = 8,
                                    .in = {4, 4},
                                    .out = {2, 2},
                                    .kernel = {3, 3}};
  const Tensor x = Tensor::full(*memory, {64, 8, 4, 4}, 2);
  const Tensor dy = Tensor::full(*memory, {64, 8, 2, 2}, 3);
  for (const int blocks : {0, 5}) {
    const Tensor dweight = Tensor::empty(*memory, {8, 8, 3, 3});
    memory->reset_peak();
    const int64_t before = memory->stats().peak_bytes;
    static_cast<Backend&>(*memory->stream()).convolve_weights(sizes, blocks, x, dy, dweight);
    EXPECT_LT(memory->stats().peak_bytes - before - int64_t{Matmul::kWorkspaceBytes},
              64 * sizes.weights() * 4 / 4);
    EXPECT_EQ(dweight.to_vector<float>(), std::vector<float>(576, 2 * 3 * 64 * 4));
  }
}

std::vector<float> values(int64_t n, uint64_t seed) {
  std::vector<float> x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(normal_at({seed, 5}, i));
  return x;
}

double gelu(double x) {
  return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

class Epilogues : public ::testing::Test {
 protected:
  static constexpr int64_t kM = 5, kN = 8, kK = 6;
  Tensor send(Shape shape, const std::vector<float>& x) {
    return Tensor::from<float>(*memory_, shape, x);
  }
  // One product of a_ and b_; returns what was written.
  std::vector<float> product(Epilogue epilogue, const Tensor& bias, const Tensor& aux) {
    const Tensor out = Tensor::zeros(*memory_, {kM, kN});
    const Tensor room = Tensor::empty(*memory_, {int64_t{Matmul::kWorkspaceBytes}}, DType::kU8);
    Product call;
    call.m = kM;
    call.n = kN;
    call.k = kK;
    const Tensor left = send({kM, kK}, a_);
    call.a = {left.raw(), kK, 1, 0};
    const Tensor turned = send({kN, kK}, b_turned());
    call.b = {turned.raw(), 1, kK, 0};
    call.out = out.raw();
    call.out_step = kN;
    call.epilogue = epilogue;
    call.bias = bias ? bias.raw() : nullptr;
    call.aux = aux ? aux.raw() : nullptr;
    call.aux_step = kN;
    auto matmul = Matmul::create();
    const auto stream = static_cast<Gpu*>(memory_->stream())->stream();
    (*matmul)->run(call, room.raw(), stream);
    (*matmul)->run(call, room.raw(), stream);
    EXPECT_EQ((*matmul)->algorithms(), 1U);
    return out.to_vector<float>();
  }
  std::vector<float> b_turned() const {
    std::vector<float> turned(b_.size());
    for (int64_t i = 0; i < kK; ++i) {
      for (int64_t j = 0; j < kN; ++j) {
        turned[static_cast<size_t>(j * kK + i)] = b_[static_cast<size_t>(i * kN + j)];
      }
    }
    return turned;
  }
  double plain(int64_t i, int64_t j) const {
    double sum = 0;
    for (int64_t p = 0; p < kK; ++p) {
      sum +=
          double{a_[static_cast<size_t>(i * kK + p)]} * double{b_[static_cast<size_t>(p * kN + j)]};
    }
    return sum;
  }

  const std::unique_ptr<Allocator> memory_ = take_gpu();
  const std::vector<float> a_ = values(kM * kK, 1), b_ = values(kK * kN, 2);
};

TEST_F(Epilogues, BiasAndGelu) {
  const std::vector<float> bias = values(kN, 3);
  const std::vector<float> with_bias = product(Epilogue::kBias, send({kN}, bias), Tensor());
  const Tensor aux = Tensor::zeros(*memory_, {kM, kN});
  const std::vector<float> with_gelu = product(Epilogue::kGeluBias, send({kN}, bias), aux);
  const std::vector<float> before = aux.to_vector<float>();
  for (int64_t i = 0; i < kM; ++i) {
    for (int64_t j = 0; j < kN; ++j) {
      const size_t at = static_cast<size_t>(i * kN + j);
      const double sum = plain(i, j) + double{bias[static_cast<size_t>(j)]};
      EXPECT_NEAR(double{with_bias[at]}, sum, 1e-6 * (1 + std::abs(sum)));
      EXPECT_NEAR(double{before[at]}, sum, 1e-6 * (1 + std::abs(sum)));
      EXPECT_NEAR(double{with_gelu[at]}, gelu(sum), 1e-6 * (1 + std::abs(sum)));
    }
  }
}

TEST_F(Epilogues, GeluAndBiasGradients) {
  const std::vector<float> before = values(kM * kN, 4);
  const Tensor bias = Tensor::zeros(*memory_, {kN});
  const std::vector<float> through =
      product(Epilogue::kDGeluBiasGradient, bias, send({kM, kN}, before));
  const std::vector<float> sums = bias.to_vector<float>();
  for (int64_t j = 0; j < kN; ++j) {
    double sum = 0;
    for (int64_t i = 0; i < kM; ++i) {
      const size_t at = static_cast<size_t>(i * kN + j);
      const double x = double{before[at]};
      const double slope = (gelu(x + 1e-5) - gelu(x - 1e-5)) / 2e-5;
      EXPECT_NEAR(double{through[at]}, plain(i, j) * slope, 1e-5 * (1 + std::abs(plain(i, j))));
      sum += plain(i, j) * slope;
    }
    EXPECT_NEAR(double{sums[static_cast<size_t>(j)]}, sum, 1e-4);
  }
}

TEST_F(Epilogues, BiasGradientOfTheRightSide) {
  const Tensor bias = Tensor::zeros(*memory_, {kN});
  product(Epilogue::kBiasGradient, bias, Tensor());
  const std::vector<float> sums = bias.to_vector<float>();
  for (int64_t j = 0; j < kN; ++j) {
    double sum = 0;
    for (int64_t p = 0; p < kK; ++p) sum += double{b_[static_cast<size_t>(p * kN + j)]};
    EXPECT_NEAR(double{sums[static_cast<size_t>(j)]}, sum, 1e-5);
  }
}

// What `linear` asks for: fused where the library can, nothing done where it cannot.
class FusedLinear : public ::testing::Test {
 protected:
  Tensor drawn(Shape shape, uint64_t seed) {
    return Tensor::from<float>(*memory_, shape, values(shape.elements(), seed));
  }
  static void expect_near(const Tensor& a, const Tensor& b) {
    const std::vector<float> left = a.to_vector<float>(), right = b.to_vector<float>();
    ASSERT_EQ(left.size(), right.size());
    for (size_t i = 0; i < left.size(); ++i) {
      EXPECT_NEAR(left[i], right[i], 1e-5F * (1 + std::abs(right[i]))) << i;
    }
  }
  const std::unique_ptr<Allocator> memory_ = take_gpu();
  Gpu& gpu_ = static_cast<Gpu&>(*memory_->stream());
  ThreadPool pool_{1};
  Context cx_{*memory_, pool_};
};

TEST_F(FusedLinear, IsItsComposition) {
  const Tensor none, x = drawn({5, 6}, 1), weight = drawn({6, 8}, 2), bias = drawn({8}, 3);
  const Tensor residual = drawn({5, 8}, 4);
  const Tensor y = Tensor::empty(*memory_, {5, 8}), before = Tensor::empty(*memory_, {5, 8});
  const Tensor product = ops::matmul(cx_, x, weight), sum = ops::add(cx_, product, bias);
  ASSERT_TRUE(gpu_.fused_linear(x, weight, bias, none, none, y));
  expect_near(y, sum);
  ASSERT_TRUE(gpu_.fused_linear(x, weight, none, residual, none, y));
  expect_near(y, ops::add(cx_, product, residual));
  ASSERT_TRUE(gpu_.fused_linear(x, weight, bias, residual, none, y));
  expect_near(y, ops::add(cx_, sum, residual));
  ASSERT_TRUE(gpu_.fused_linear(x, weight, bias, none, before, y));
  expect_near(before, sum);
  expect_near(y, ops::activate(cx_, sum, ops::Activation::kGeluTanh));
  const Tensor dweight = Tensor::empty(*memory_, {6, 8}), dbias = Tensor::empty(*memory_, {8});
  ASSERT_TRUE(gpu_.fused_weight_gradient(x, y, dweight, dbias));
  expect_near(dweight, ops::matmul(cx_, ops::permute(cx_, x, std::array{1, 0}), y));
  expect_near(dbias, ops::sum(cx_, y, 0));
}

// The library has other algorithms for many tokens than for the few above, which may cut the sum
// over them into parts. What is added up in fp32 is held to its sum in double, by the size of its
// terms.
TEST_F(FusedLinear, IsItsDefinitionAtTheSizesOfModels) {
  const Tensor none;
  for (const auto [tokens, in, out] :
       {std::array<int64_t, 3>{2048, 256, 1024}, {2048, 1024, 256}}) {
    const std::vector<float> x = values(tokens * in, 1), weight = values(in * out, 2);
    const std::vector<float> bias = values(out, 3), dy = values(tokens * out, 4);
    const auto send = [&](Shape shape, const std::vector<float>& from) {
      return Tensor::from<float>(*memory_, shape, from);
    };
    const Tensor y = Tensor::empty(*memory_, {tokens, out});
    const Tensor before = Tensor::empty(*memory_, {tokens, out});
    const Tensor dweight = Tensor::empty(*memory_, {in, out}),
                 dbias = Tensor::empty(*memory_, {out});
    const Tensor device_x = send({tokens, in}, x);
    ASSERT_TRUE(
        gpu_.fused_linear(device_x, send({in, out}, weight), send({out}, bias), none, before, y));
    ASSERT_TRUE(gpu_.fused_weight_gradient(device_x, send({tokens, out}, dy), dweight, dbias));
    const std::vector<float> kept = before.to_vector<float>(), active = y.to_vector<float>();
    for (size_t i = 0; i < kept.size(); ++i) {
      ASSERT_NEAR(double{active[i]}, gelu(double{kept[i]}), 1e-6 * (1 + std::abs(double{kept[i]})))
          << i;
    }
    const auto at = [](const std::vector<float>& from, int64_t row, int64_t step, int64_t column) {
      return double{from[static_cast<size_t>(row * step + column)]};
    };
    const std::vector<float> dw = dweight.to_vector<float>(), db = dbias.to_vector<float>();
    for (int64_t j = 0; j < out; ++j) {
      // A row of y and of dweight each, so that every row and column has a turn.
      const int64_t token = j * 7 % tokens, feature = j * 5 % in;
      double sum = double{bias[static_cast<size_t>(j)]}, sizes = std::abs(sum);
      for (int64_t i = 0; i < in; ++i) {
        const double term = at(x, token, in, i) * at(weight, i, out, j);
        sum += term;
        sizes += std::abs(term);
      }
      EXPECT_NEAR(at(kept, token, out, j), sum, 2e-6 * sizes) << token << ", " << j;
      double of_bias = 0, of_weight = 0, bias_sizes = 0, weight_sizes = 0;
      for (int64_t t = 0; t < tokens; ++t) {
        const double term = at(dy, t, out, j);
        of_bias += term;
        bias_sizes += std::abs(term);
        of_weight += at(x, t, in, feature) * term;
        weight_sizes += std::abs(at(x, t, in, feature) * term);
      }
      EXPECT_NEAR(double{db[static_cast<size_t>(j)]}, of_bias, 2e-6 * bias_sizes) << j;
      EXPECT_NEAR(at(dw, feature, out, j), of_weight, 2e-6 * weight_sizes) << feature << ", " << j;
    }
  }
}

// Rows of the kept input that are no multiple of 8, a bias off 16 bytes, a product without rows.
TEST_F(FusedLinear, IsLeftToOtherKernelsWhereTheLibraryHasRules) {
  const Tensor none, x = drawn({5, 6}, 1), odd = drawn({6, 7}, 2), bias = drawn({9}, 3);
  const std::array<int64_t, 1> step{1};
  const Tensor y = Tensor::full(*memory_, {5, 7}, 3), before = Tensor::empty(*memory_, {5, 7});
  const Tensor whole = bias.view({7}, step, 0), off = bias.view({7}, step, 1);
  EXPECT_FALSE(gpu_.fused_linear(x, odd, whole, none, before, y));
  EXPECT_FALSE(gpu_.fused_linear(x, odd, off, none, none, y));
  EXPECT_FALSE(gpu_.fused_linear(x, odd, none, none, before, y));
  const Tensor nothing = Tensor::empty(*memory_, {0, 6});
  EXPECT_FALSE(gpu_.fused_linear(nothing, odd, whole, none, none, Tensor::empty(*memory_, {0, 7})));
  EXPECT_EQ(y.to_vector<float>(), std::vector<float>(35, 3));
  EXPECT_TRUE(gpu_.fused_linear(x, odd, whole, none, none, y));
}

}  // namespace
}  // namespace weft::cuda
