#include "tests/cluster/comm/gpu_collective_cases.h"

#include <gtest/gtest.h>

#include <numeric>
#include <utility>
#include <vector>

#include "kernels/tensor/stream.h"

namespace weft::testing {
namespace {

// 1 + 2 + ... + size: what rank + 1 sums up to.
int64_t sum_of_ranks(const Communicator& comm) {
  return int64_t{comm.size()} * (comm.size() + 1) / 2;
}

// A collective waits for what was queued on its tensor before, and readers for the collective.
void between_the_ranks_work(Communicator& comm, Allocator& gpu) {
  Tensor x = Tensor::full(gpu, {1000}, comm.rank() + 1);
  auto expected = static_cast<float>(sum_of_ranks(comm));
  for (int i = 0; i < 3; ++i) {
    if (i > 0) expected *= 2 * static_cast<float>(comm.size());
    comm.all_reduce(x, ReduceOp::kSum);
    if (i < 2) gpu.stream()->add(x, x);
  }
  for (const float value : x.to_vector<float>()) ASSERT_EQ(value, expected);
}

// What is started may use memory of its own (sums of halves, uneven parts) that nobody else gets
// before it is waited for, in whatever order the two streams run.
void beside_the_ranks_work(Communicator& comm, Allocator& gpu) {
  const int rank = comm.rank();
  std::vector<int64_t> counts;
  for (int r = 0; r < comm.size(); ++r) counts.push_back(200 + 100 * r);
  const int64_t whole_count = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  Tensor halves = Tensor::full(gpu, {1000}, rank + 1, DType::kBF16);
  const Tensor whole = Tensor::full(gpu, {whole_count}, 2 * (rank + 1));
  Tensor part = Tensor::empty(gpu, {counts[static_cast<size_t>(rank)]});
  Pending pending = comm.start([=](Communicator& c) mutable {
    c.all_reduce(halves, ReduceOp::kSum);
    c.reduce_scatter(whole, part, counts);
  });
  // Takes every free block of these sizes.
  std::vector<Tensor> own;
  for (const int64_t count : {int64_t{1000}, whole_count, counts.back()}) {
    for (int i = 0; i < 8; ++i) own.push_back(Tensor::full(gpu, {count}, -7));
  }
  pending.wait();
  const auto sum = static_cast<float>(sum_of_ranks(comm));
  EXPECT_EQ(halves.to_vector<bfloat16>()[999], bfloat16(sum));
  EXPECT_EQ(part.to_vector<float>().back(), 2 * sum);
  for (const Tensor& each : own) EXPECT_EQ(each.to_vector<float>().back(), -7);
  // Let go of without waiting.
  comm.start([=](Communicator& c) mutable { c.all_reduce(halves, ReduceOp::kMax); });
  EXPECT_EQ(halves.to_vector<bfloat16>()[0], bfloat16(sum));
}

// A step's worth: buckets under way while products are taken, waited for at the end.
void buckets_beside_work(Communicator& comm, Allocator& gpu) {
  std::vector<Tensor> buckets;
  std::vector<Pending> pending;
  Tensor work = Tensor::full(gpu, {30'001}, 1);
  for (int i = 0; i < 6; ++i) {
    Tensor bucket = Tensor::full(gpu, {100'003 + i}, comm.rank() + 1 + i);
    buckets.push_back(bucket);
    pending.push_back(
        comm.start([bucket](Communicator& c) mutable { c.all_reduce(bucket, ReduceOp::kSum); }));
    gpu.stream()->add(work, work);
  }
  for (Pending& each : pending) each.wait();
  for (int i = 0; i < 6; ++i) {
    const auto expected = static_cast<float>(sum_of_ranks(comm) + int64_t{i} * comm.size());
    for (const float value : buckets[static_cast<size_t>(i)].to_vector<float>()) {
      ASSERT_EQ(value, expected) << "bucket " << i;
    }
  }
  EXPECT_EQ(work.to_vector<float>().back(), 64);
}

constexpr CollectiveCase kCases[] = {
    {"BetweenTheRanksWork", between_the_ranks_work},
    {"BesideTheRanksWork", beside_the_ranks_work},
    {"BucketsBesideWork", buckets_beside_work},
};

}  // namespace

std::span<const CollectiveCase> gpu_collective_cases() { return kCases; }

}  // namespace weft::testing
