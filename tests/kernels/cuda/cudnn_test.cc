// Which calls go to cuDNN, and how it is asked: the library is played on the CPU.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <functional>

#include "kernels/attention/attention.h"
#include "kernels/autograd/tape.h"
#include "kernels/cuda/attention_choice.h"
#include "kernels/cuda/cudnn_graph.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/gpu.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/random.h"

namespace weft::cuda {
namespace {

TEST(AttentionChoice, IsReadFromTheEnvironment) {
  EXPECT_EQ(parse_attention_mode("own").value(), AttentionMode::kOwn);
  EXPECT_EQ(parse_attention_mode("cudnn").value(), AttentionMode::kCudnn);
  EXPECT_EQ(parse_attention_mode("unordered").value(), AttentionMode::kUnordered);
  const auto wrong = parse_attention_mode("fast");
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().field(), "WEFT_ATTENTION");
  EXPECT_EQ(wrong.error().value(), "fast");
}

TEST(AttentionChoice, IsCudnnsWhereItWasMeasuredToLead) {
  const auto leads = [](bool backward, bool repeatable, bool causal, int64_t tokens, int features) {
    CudnnCall call;
    call.shape = {1, 2, 2, tokens, tokens, features, features};
    call.backward = backward;
    call.repeatable = repeatable;
    call.causal = causal;
    EXPECT_FALSE(cudnn_leads(80, call));
    CudnnCall window = call, wide = call, grouped = call, fewer = call;
    window.window_left = 3;
    wide.shape.value_width *= 2;
    grouped.shape.key_heads = 1;
    fewer.shape.queries = 511;
    EXPECT_FALSE(cudnn_leads(90, window) || cudnn_leads(90, wide) || cudnn_leads(90, fewer));
    EXPECT_EQ(cudnn_leads(90, grouped), cudnn_leads(90, call) && !backward);
    return cudnn_leads(90, call);
  };
  for (const bool causal : {true, false}) {
    EXPECT_TRUE(leads(false, true, causal, 512, 64));
    EXPECT_TRUE(leads(false, true, causal, 8192, 128));
    EXPECT_FALSE(leads(false, true, causal, 511, 64));
    EXPECT_FALSE(leads(false, true, causal, 512, 56));
    EXPECT_FALSE(leads(true, true, causal, 8192, 64));
    EXPECT_TRUE(leads(true, true, causal, 512, 72));
    EXPECT_FALSE(leads(true, true, causal, 511, 128));
    EXPECT_TRUE(leads(true, false, causal, 512, 64));
    EXPECT_FALSE(leads(true, false, causal, 511, 64));
    EXPECT_FALSE(leads(true, false, causal, 512, 128));
    EXPECT_EQ(leads(true, false, causal, 1024, 128), !causal);
    EXPECT_TRUE(leads(true, false, causal, 2048, 128));
  }
}

// Attention of random bf16 values on a GPU.
class CallsOfCudnn : public ::testing::Test {
 protected:
  void SetUp() override { choose_attention(AttentionMode::kCudnn); }
  void TearDown() override { choose_attention(AttentionMode::kMeasured); }

  Tensor random(const Shape& shape, uint64_t seed, DType dtype = DType::kBF16) {
    std::vector<float> values;
    for (int64_t i = 0; i < shape.elements(); ++i) {
      values.push_back(static_cast<float>(normal_at({seed, 7}, static_cast<uint64_t>(i))));
    }
    return ops::cast(cx_, Tensor::from<float>(*memory_, shape, values), dtype);
  }
  // How many of the forward and backward pass cuDNN computes.
  int64_t runs(int64_t tokens, int64_t features, DType dtype,
               const std::function<void(attention::Parameters&)>& change = {}) {
    const Shape shape{heads_, heads_, tokens, features};
    attention::Parameters parameters;
    if (change) change(parameters);
    Tape tape;
    Context recording = cx_;
    recording.tape = &tape;
    std::vector<Tensor> inputs;
    for (const uint64_t seed : {1, 2, 3}) {
      inputs.push_back(random(shape, seed, dtype).detach().set_requires_grad(true));
    }
    const int64_t before = cudnn_runs();
    const Tensor y =
        attention::scaled_dot_product(recording, inputs[0], inputs[1], inputs[2], parameters);
    tape.backward(recording, y, random(shape, 4, dtype));
    if (dtype == DType::kBF16)
      gradient_ = ops::cast(cx_, inputs[0].grad(), dtype).to_vector<bfloat16>();
    return cudnn_runs() - before;
  }

  const std::unique_ptr<Allocator> memory_ = [] {
    auto memory = make_allocator(0);
    EXPECT_TRUE(memory);
    return std::move(*memory);
  }();
  Gpu& gpu_ = static_cast<Gpu&>(*memory_->stream());
  ThreadPool pool_{1};
  Context cx_{*memory_, pool_};
  std::vector<bfloat16> gradient_;
  int64_t heads_ = 2;  // of as many rows
};

TEST_F(CallsOfCudnn, AreThoseThatItTakes) {
  EXPECT_EQ(runs(9, 16, DType::kBF16), 2);
  EXPECT_EQ(runs(9, 16, DType::kF16), 2);
  EXPECT_EQ(runs(9, 16, DType::kF32), 0);
  EXPECT_EQ(runs(9, 12, DType::kBF16), 0);  // features
  EXPECT_EQ(runs(1, 16, DType::kBF16), 0);
  choose_attention(AttentionMode::kOwn);
  EXPECT_EQ(runs(9, 16, DType::kBF16), 0);
}

TEST_F(CallsOfCudnn, HaveNoOtherRules) {
  using Parameters = attention::Parameters;
  const auto runs_with = [&](const std::function<void(Parameters&)>& change) {
    return runs(9, 16, DType::kBF16, change);
  };
  const auto filled = [&](Shape shape, double value, DType dtype) {
    return Tensor::full(*memory_, shape, value, dtype);
  };
  EXPECT_EQ(runs_with([](Parameters& p) { p.visibility.causal = true; }), 2);
  EXPECT_EQ(runs_with([](Parameters& p) {
              p.visibility.causal = true;
              p.visibility.window_left = 3;
            }),
            2);
  const std::function<void(Parameters&)> others[] = {
      [](Parameters& p) { p.visibility.window_left = 3; },
      [](Parameters& p) { p.visibility.window_right = 3; },
      [](Parameters& p) { p.scale = -1; },
      [](Parameters& p) { p.soft_cap = 2; },
      [](Parameters& p) {
        p.alibi_slopes = {0.5, 0.25};
      },
      [](Parameters& p) {
        p.dropout = {0.5, {1, 2}, 2, 2, 9, 9};
      },
      [&](Parameters& p) {
        p.bias = filled({1, 1, 9, 9}, 1, DType::kBF16);
      },
      [&](Parameters& p) { p.sinks = filled({2}, 1, DType::kBF16); },
      [&](Parameters& p) {
        p.visibility.mask = filled({1, 1, 9, 9}, 1, DType::kU8);
      },
      [&](Parameters& p) {
        p.visibility.key_valid = filled({2, 9}, 1, DType::kU8);
      },
      [&](Parameters& p) {
        p.visibility.query_document = p.visibility.key_document = filled({2, 9}, 0, DType::kI64);
      },
      [&](Parameters& p) {
        p.visibility.query_position = p.visibility.key_position = filled({2, 9}, 0, DType::kI64);
      }};
  for (size_t i = 0; i < std::size(others); ++i) EXPECT_EQ(runs_with(others[i]), 0) << i;
}

TEST_F(CallsOfCudnn, GiveTheSameBitsUnlessAskedOtherwise) {
  ASSERT_EQ(runs(20, 16, DType::kBF16), 2);
  const std::vector<bfloat16> once = gradient_;
  runs(20, 16, DType::kBF16);
  EXPECT_TRUE(gradient_ == once);
  choose_attention(AttentionMode::kUnordered);
  ASSERT_EQ(runs(20, 16, DType::kBF16), 2);
  const std::vector<bfloat16> unordered = gradient_;
  runs(20, 16, DType::kBF16);
  EXPECT_FALSE(gradient_ == unordered);
}

// Of 1,024 tokens cuDNN leads without an order, and forwards.
TEST_F(CallsOfCudnn, FollowFromWhatIsToRepeat) {
  choose_attention(AttentionMode::kMeasured);
  heads_ = 1;
  cx_.repeatable = false;
  EXPECT_EQ(runs(1024, 64, DType::kBF16), 2);
  const std::vector<bfloat16> unordered = gradient_;
  runs(1024, 64, DType::kBF16);
  EXPECT_FALSE(gradient_ == unordered);
  cx_.repeatable = true;
  EXPECT_EQ(runs(1024, 64, DType::kBF16), 1);
  cx_.block_count = 1;
  EXPECT_EQ(runs(1024, 64, DType::kBF16), 0);
  for (const AttentionMode asked : {AttentionMode::kCudnn, AttentionMode::kUnordered}) {
    choose_attention(asked);
    EXPECT_EQ(runs(9, 16, DType::kBF16), 0);
  }
}

// To plan waits for the device, so a recorded pass only takes what was planned before.
TEST_F(CallsOfCudnn, AreRecordedOnceTheyArePlanned) {
  const Shape shape{1, 2, 11, 16};
  const Tensor q = random(shape, 1), k = random(shape, 2), v = random(shape, 3);
  const auto attend = [&] {
    return std::vector<Tensor>{
        ops::contiguous(cx_, attention::scaled_dot_product(cx_, q, k, v, {}))};
  };
  choose_attention(AttentionMode::kOwn);
  gpu_.in_pass([&] { attend(); });  // memory for what follows
  choose_attention(AttentionMode::kCudnn);
  const auto too_early = gpu_.record(1, attend);
  ASSERT_FALSE(too_early);
  EXPECT_EQ(too_early.error().message(), "a plan of cuDNN in the middle of it");
  std::vector<bfloat16> expected;
  gpu_.in_pass([&] { expected = attend()[0].to_vector<bfloat16>(); });
  const auto recording = gpu_.record(1, attend);
  ASSERT_TRUE(recording) << recording.error().to_string();
  std::vector<Tensor> results;
  ASSERT_TRUE((*recording)->queue(1, results));
  EXPECT_TRUE(results[0].to_vector<bfloat16>() == expected);
}

CudnnCall call_of(AttentionShape shape, int64_t token_step, void* data) {
  const auto heads = [&](int64_t tokens) {
    return AttentionHeads<void>{data, tokens * shape.heads * token_step, token_step,
                                shape.heads * token_step};
  };
  CudnnCall call;
  call.shape = shape;
  call.q = call.out = heads(shape.queries);
  call.k = call.v = heads(shape.keys);
  return call;
}

TEST(CudnnAttention, KnowsWhatItPlanned) {
  auto attention = CudnnAttention::create();
  ASSERT_TRUE(attention);
  alignas(16) std::array<char, 16> memory{};
  const auto is_taken = [&](const CudnnCall& call) {
    return (*attention)->workspace_bytes(call).has_value();
  };
  const AttentionShape shape{2, 2, 2, 5, 7, 16, 16};
  const CudnnCall call = call_of(shape, 16, memory.data());
  EXPECT_FALSE((*attention)->knows(call));
  EXPECT_TRUE(is_taken(call));
  EXPECT_TRUE((*attention)->knows(call));
  CudnnCall causal = call, scaled = call;
  causal.causal = true;
  scaled.scale = 2;
  EXPECT_FALSE((*attention)->knows(causal));
  EXPECT_FALSE((*attention)->knows(scaled));
  EXPECT_FALSE(is_taken(call_of(shape, 20, memory.data())));      // rows of 40 bytes
  EXPECT_FALSE(is_taken(call_of(shape, 0, memory.data())));       // shared by all tokens
  EXPECT_FALSE(is_taken(call_of(shape, 16, memory.data() + 2)));  // not aligned
  EXPECT_FALSE(is_taken(call_of({1, 1, 1, int64_t{1} << 30, 7, 16, 16}, 16, memory.data())));
  CudnnCall window = call_of({2, 2, 2, 9, 7, 16, 16}, 16, memory.data());
  window.causal = true;
  window.window_left = 0;  // the last query would see nothing
  EXPECT_FALSE(is_taken(window));
}

TEST(CudnnGraph, RefusesWhatDoesNotFit) {
  const Cudnn& library = **cudnn();
  cudnnHandle_t handle = nullptr;
  library.create(&handle);
  const auto planned = [&](const Extents4& a, const Extents4& b, const Extents4& c) {
    CudnnGraph graph(library);
    const Extents4 steps{1024, 256, 16, 1};
    graph.matmul(graph.tensor(CUDNN_DATA_HALF, a, steps), graph.tensor(CUDNN_DATA_HALF, b, steps),
                 graph.tensor(CUDNN_DATA_HALF, c, steps));
    return graph.plan(handle, true);
  };
  EXPECT_TRUE(planned({1, 2, 3, 4}, {1, 1, 4, 5}, {1, 2, 3, 5}));
  EXPECT_THROW(planned({1, 2, 3, 4}, {1, 1, 3, 5}, {1, 2, 3, 5}), StatusError);
  library.destroy(handle);
}

}  // namespace
}  // namespace weft::cuda
