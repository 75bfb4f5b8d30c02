// Numbers in data that name nothing: a GPU takes and writes nothing there, goes on, and whoever
// waits for it is told what the op says on the CPU.
#include <gtest/gtest.h>

#include <functional>

#include "kernels/autograd/tape.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/device.h"
#include "kernels/ops/indexing.h"
#include "kernels/ops/losses.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/segments.h"
#include "kernels/tensor/transfer.h"
#include "proto/base/status.h"
#include "tests/kernels/cuda/schedule.h"

namespace weft::cuda {
namespace {

// An op at `bad` numbers; `good` ones have the same shape.
struct OpCase {
  std::string name;
  std::vector<int64_t> bad, good;
  std::function<Tensor(Context&, const Tensor& numbers)> f;
  std::string said;
};

Tensor halves(Context& cx, const Shape& shape) { return Tensor::full(cx.allocator, shape, 0.5); }
Tensor numbers_of(Context& cx, const std::vector<int64_t>& values) {
  return Tensor::from<int64_t>(cx.allocator, Shape{std::ssize(values)}, values);
}
Tensor as_rows(Context& cx, const Tensor& numbers, int64_t rows) {
  return ops::reshape(cx, numbers, {rows, numbers.elements() / rows});
}
Tensor loss_of(Context& cx, const Tensor& labels, bool recorded, double smoothing) {
  ops::TokenLoss loss;
  loss.smoothing = smoothing;
  Tensor logits = halves(cx, {3, 5});
  Tape tape;
  Context recording = cx;
  if (recorded) {
    logits.set_requires_grad(true);
    recording.tape = &tape;
  }
  return ops::cross_entropy_sum(recording, logits, labels, loss).detach();
}
// numbers: the lengths of two inputs, of two targets, and two targets of two labels each.
Tensor ctc_of(Context& cx, const Tensor& numbers) {
  const auto part = [&](int64_t first, int64_t count) {
    return ops::slice(cx, numbers, 0, first, count);
  };
  return ops::ctc_loss(cx, halves(cx, {4, 2, 5}), as_rows(cx, part(4, 4), 2), part(0, 2),
                       part(2, 2), /*blank=*/1);
}

std::vector<OpCase> op_cases() {
  const auto gather = [](Context& cx, const Tensor& index) {
    return ops::gather(cx, halves(cx, {3, 4}), 1, as_rows(cx, index, 3));
  };
  const auto scatter_add = [](Context& cx, const Tensor& index) {
    const Tensor at = as_rows(cx, index, 3);
    return ops::scatter_add(cx, halves(cx, {3, 4}), 1, at, halves(cx, at.shape()));
  };
  const auto index_select = [](Context& cx, const Tensor& index) {
    return ops::index_select(cx, halves(cx, {3, 4}), 0, index);
  };
  const auto index_add = [](Context& cx, const Tensor& index) {
    return ops::index_add(cx, halves(cx, {3, 4}), 1, index, halves(cx, {3, index.elements()}));
  };
  const auto one_hot = [](Context& cx, const Tensor& ids) { return ops::one_hot(cx, ids, 6); };
  const auto gather_rows = [](Context& cx, const Tensor& index) {
    return ops::gather_rows(cx, halves(cx, {3, 4, 2}), index);
  };
  const auto segment_sum = [](Context& cx, const Tensor& segment) {
    return ops::segment_sum(cx, halves(cx, {4, 3}), segment, 2);
  };
  const auto segment_max = [](Context& cx, const Tensor& segment) {
    return ops::segment_max(cx, halves(cx, {4, 3}), segment, 2);
  };
  const auto segment_softmax = [](Context& cx, const Tensor& segment) {
    return ops::segment_softmax(cx, halves(cx, {4, 3}), segment, 2);
  };
  const auto loss = [](bool recorded, double smoothing) {
    return [=](Context& cx, const Tensor& at) { return loss_of(cx, at, recorded, smoothing); };
  };
  const auto linear_loss = [](Context& cx, const Tensor& labels) {
    return ops::linear_cross_entropy_sum(cx, halves(cx, {3, 2}), halves(cx, {5, 2}), labels,
                                         ops::TokenLoss());
  };
  const std::string below_5 = "label must be in [0, 5)";
  const std::string no_target = "targets must be in [0, 5) and not the blank, 1";
  const std::vector<int64_t> ctc{4, 3, 2, 1, 0, 2, 3, 0};
  return {
      {"gather", {0, 3, 4, 0, 1, 2}, {0, 3, 1, 0, 1, 2}, gather, "index gather takes [0, 4)"},
      {"scatter_add", {0, -1, 3}, {0, 1, 3}, scatter_add, "index scatter_add takes [0, 4)"},
      {"index_select", {2, 3}, {2, 2}, index_select, "index index_select takes [0, 3)"},
      {"index_add", {1, INT64_MIN}, {1, 0}, index_add, "index index_add takes [0, 4)"},
      {"one_hot", {5, 6}, {5, 0}, one_hot, "index one_hot takes [0, 6)"},
      {"gather_rows", {3, -1, -2}, {3, -1, 0}, gather_rows, "index gather_rows takes [-1, 4)"},
      {"segment_sum", {0, 1, 1, 2}, {0, 1, 1, 1}, segment_sum, "segment must be in [0, 2)"},
      {"segment_max", {-7, 1, 1, 0}, {0, 1, 1, 0}, segment_max, "segment must be in [0, 2)"},
      {"segment_softmax", {1, 9, 0, 0}, {1, 1, 0, 0}, segment_softmax, "segment must be in [0, 2)"},
      {"loss", {-100, 4, 5}, {-100, 4, 0}, loss(false, 0), below_5},
      {"smoothed_loss", {-1, 4, 0}, {1, 4, 0}, loss(false, 0.25), below_5},
      {"loss_with_gradient", {0, INT64_MAX, 4}, {0, 1, 4}, loss(true, 0), below_5},
      {"linear_loss", {0, 5, 4}, {0, 1, 4}, linear_loss, below_5},
      {"inputs", {5, 3, 2, 1, 0, 2, 3, 0}, ctc, ctc_of, "input_lengths must be in [0, 4]"},
      {"targets", {4, 3, 2, 3, 0, 2, 3, 0}, ctc, ctc_of, "target_lengths must be in [0, 2]"},
      {"label", {4, 3, 2, 1, 0, 2, 5, 0}, ctc, ctc_of, no_target},
      {"blank", {4, 3, 2, 1, 0, 1, 3, 0}, ctc, ctc_of, no_target}};
}

std::string said_by(const std::function<void()>& act) {
  try {
    act();
  } catch (const StatusError& error) {
    return error.status().to_string();
  }
  return "";
}

class OutOfRange : public ::testing::TestWithParam<OpCase> {
 protected:
  static std::unique_ptr<Allocator> take_gpu() {
    auto memory = make_allocator(0);
    if (!memory) throw StatusError(memory.error());
    return std::move(*memory);
  }
  const std::unique_ptr<Allocator> host_ = make_caching_allocator(), gpu_ = take_gpu();
  ThreadPool pool_{1};
};

TEST_P(OutOfRange, IsToldAsOnTheCpuByWhoeverWaits) {
  const OpCase& tested = GetParam();
  Context here{*host_, pool_}, there{*gpu_, pool_};
  const auto on_cpu = [&] { tested.f(here, numbers_of(here, tested.bad)); };
  const std::string expected = said_by(on_cpu);
  const size_t field = tested.said.find(' ');
  EXPECT_NE(expected.find(tested.said.substr(0, field)), std::string::npos) << expected;
  EXPECT_NE(expected.find(tested.said.substr(field + 1)), std::string::npos) << expected;
  for (const uint64_t order : {0, 1, 2}) {
    vary_schedule(order);
    const Tensor bad = numbers_of(there, tested.bad), good = numbers_of(there, tested.good);
    gpu_->stream()->synchronize();
    const Tensor y = tested.f(there, bad);  // waits for nothing
    EXPECT_EQ(said_by([&] { gpu_->stream()->synchronize(); }), expected);
    EXPECT_EQ(said_by([&] { gpu_->stream()->synchronize(); }), "");  // once
    const Tensor got = tested.f(there, good), want = tested.f(here, numbers_of(here, tested.good));
    for (int64_t i = 0; i < want.elements(); ++i) {
      const auto at = static_cast<size_t>(i);
      EXPECT_NEAR(got.to_vector<float>()[at], want.to_vector<float>()[at], 1e-5) << i;
    }
  }
}

// What runs as a graph tells of the numbers that it finds there now.
TEST_P(OutOfRange, IsToldOfRecordedWork) {
  const OpCase& tested = GetParam();
  Context there{*gpu_, pool_};
  auto& gpu = static_cast<Backend&>(*gpu_->stream());
  const Tensor numbers = numbers_of(there, tested.good);
  gpu.in_pass([&] { tested.f(there, numbers).to_vector<float>(); });
  auto recording = gpu.record(1, [&] { return std::vector<Tensor>{tested.f(there, numbers)}; });
  ASSERT_TRUE(recording) << recording.error().to_string();
  const auto run = [&](const std::vector<int64_t>& values) {
    upload(numbers, values.data());
    std::vector<Tensor> results;
    EXPECT_TRUE((*recording)->queue(1, results));
    return said_by([&] { results[0].to_vector<float>(); });
  };
  EXPECT_EQ(run(tested.good), "");
  EXPECT_NE(run(tested.bad), "");
  EXPECT_EQ(run(tested.good), "");
}

INSTANTIATE_TEST_SUITE_P(Ops, OutOfRange, ::testing::ValuesIn(op_cases()),
                         [](const auto& tested) { return tested.param.name; });

TEST(FirstOutOfRange, IsTheOneThatIsTold) {
  const auto memory = std::move(*make_allocator(0));
  ThreadPool pool(1);
  Context cx{*memory, pool};
  const Tensor x = halves(cx, {3, 4});
  ops::one_hot(cx, numbers_of(cx, {7}), 6);
  ops::index_select(cx, x, 0, numbers_of(cx, {3}));
  EXPECT_EQ(said_by([&] { read_scalar(ops::sum_all(cx, x)); }),
            ops::to_status({ops::Numbers::kOneHot, 7, 6}).to_string());
  EXPECT_EQ(read_scalar(ops::sum_all(cx, x)), 6);
}

}  // namespace
}  // namespace weft::cuda
