// A sequence whose training step fits no single rank's memory trains on four, over rings, exchanges
// and grids, with the loss of one rank that has memory enough.
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>

#include "kernels/autograd/tape.h"
#include "tests/testing/rank_runner.h"
#include "worker/tasks/task.h"

namespace weft {
namespace {

// Refuses what is beyond its budget, in bytes that are held at once.
class BudgetAllocator final : public Allocator {
 public:
  explicit BudgetAllocator(int64_t budget) : budget_(budget) {}
  void* allocate(size_t bytes) override {
    if (held_.fetch_add(static_cast<int64_t>(bytes)) + static_cast<int64_t>(bytes) > budget_) {
      held_.fetch_sub(static_cast<int64_t>(bytes));
      throw StatusError(Status(Code::kResourceExhausted, "beyond the budget"));
    }
    return inner_->allocate(bytes);
  }
  void release(void* data, size_t bytes) noexcept override {
    held_.fetch_sub(static_cast<int64_t>(bytes));
    inner_->release(data, bytes);
  }
  AllocatorStats stats() const override { return inner_->stats(); }
  void reset_peak() override { inner_->reset_peak(); }

 private:
  const int64_t budget_;
  std::atomic<int64_t> held_ = 0;
  const std::unique_ptr<Allocator> inner_ = make_caching_allocator();
};

constexpr int64_t kTokens = 4096;

TaskRows one_row() {
  TaskRows rows;
  rows.rows = 1;
  rows.tokens = kTokens;
  for (int64_t token = 0; token < kTokens; ++token) rows.ids.push_back(token * token % 251);
  return rows;
}

struct Step {
  double loss = 0;
  int64_t peak = 0;  // of the fullest rank
};

Step step(MeshDegrees mesh, int64_t budget) {
  Step step;
  std::mutex mutex;
  testing::run_mesh(mesh, [&](Rank& rank) {
    rank.allocator = std::make_unique<BudgetAllocator>(budget);
    const ModelFamily& family = *find_family("gpt2");
    const auto trunk = *family.make_trunk(
        rank, *family.parse_config(R"({"n_embd": 64, "n_head": 4, "n_layer": 2, "vocab_size": 257,
            "n_positions": 4096, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0})"));
    initialize_parameters(trunk->parameters(), 1);
    const auto task = *make_task(rank, "causal_lm", trunk->config(), {.name = "lm"});
    Tape tape;
    Context cx = rank.context();
    cx.tape = &tape;
    const Tensor loss = task->loss_sum(cx, *trunk, task->assemble(one_row(), {0, 1}));
    tape.backward(cx, loss);
    const std::lock_guard lock(mutex);
    step.loss += double{*loss.data<float>()};
    step.peak = std::max(step.peak, rank.allocator->stats().peak_bytes);
  });
  return step;
}

TEST(LongSequence, FitsFourRanksButNotOne) {
  constexpr int64_t kPlenty = int64_t{1} << 30;
  const Step whole = step({}, kPlenty);
  const int64_t budget = whole.peak * 4 / 10;
  try {
    step({}, budget);
    ADD_FAILURE() << "one rank had memory enough";
  } catch (const StatusError& error) {
    EXPECT_EQ(error.status().code(), Code::kResourceExhausted);
  }
  for (const int ulysses : {1, 2, 4}) {
    const Step part = step({.sequence = 4, .ulysses = ulysses}, budget);
    EXPECT_NEAR(part.loss, whole.loss, 1e-5 * whole.loss) << ulysses;
    EXPECT_LT(part.peak, budget) << ulysses;
  }
}

}  // namespace
}  // namespace weft
