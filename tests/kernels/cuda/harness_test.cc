// The harness finds what it is there to find, on kernels made for it.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "kernels/cuda/launch.h"
#include "proto/base/status.h"
#include "tests/testing/cuda_on_cpu/device_memory.h"

namespace weft::cuda_on_cpu {
namespace {

using cuda::launch;

constexpr unsigned kAll = 0xFFFFFFFFU;

// ---- kernels
__global__ void record_order(std::vector<unsigned>* order) {
  order->push_back(blockIdx.x * blockDim.x + threadIdx.x);
}

__global__ void record_place(unsigned* out) {
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] += block * 1000 + thread;
}

__global__ void turn_round(const int* in, int* out, bool with_barrier) {
  __shared__ int values[64];
  values[threadIdx.x] = in[threadIdx.x];
  if (with_barrier) __syncthreads();
  out[threadIdx.x] = values[63 - threadIdx.x];
}

__global__ void leak_shared(int* out) {
  __shared__ int value;
  if (threadIdx.x == 0) out[blockIdx.x] = value;
  __syncthreads();
  value = 7;
}

__global__ void leave_before_the_barrier() {
  if (threadIdx.x == 5) return;
  __syncthreads();
}

__global__ void two_barriers() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void half_a_warp() {
  if (threadIdx.x < 16) __syncwarp(kAll);
}

__global__ void not_in_its_mask() { __syncwarp(0xFFFEU); }

__global__ void outside_the_mask(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xFFFFU, 1, 20);
}

__global__ void shuffles(int* out) {
  const int own = static_cast<int>(threadIdx.x);
  out[own] = __shfl_xor_sync(kAll, own, 5);
  out[64 + own] = __shfl_down_sync(kAll, own, 3);
  out[128 + own] = __shfl_up_sync(kAll, own, 3);
  out[192 + own] = __shfl_sync(kAll, own, 9);
}

__global__ void votes(unsigned* out) {
  const bool odd = threadIdx.x % 2 == 1;
  const unsigned all = __ballot_sync(kAll, odd);
  unsigned some = 0;
  if (odd) {
    some = __ballot_sync(0xAAAAAAAAU, threadIdx.x > 16);
  } else {
    some = __ballot_sync(0x55555555U, threadIdx.x > 16);
  }
  out[2 * threadIdx.x] = all;
  out[2 * threadIdx.x + 1] = some;
  if (__any_sync(kAll, threadIdx.x == 3) == 0 || __all_sync(kAll, threadIdx.x == 3) != 0) {
    out[0] = 0;
  }
}

__global__ void count(int* counter) { atomicAdd(counter, 1); }

__global__ void write_at(float* out, int64_t index, const float* value) { out[index] = *value; }

// ---- tests
std::vector<unsigned> order_under(const Schedule& schedule) {
  std::vector<unsigned> order;
  set_schedule(schedule);
  launch(nullptr, 3, 32, record_order, &order);
  return order;
}

template <typename... Arguments, typename... Parameters>
std::string fault_of(dim3 block, void (*kernel)(Parameters...), Arguments... arguments) {
  set_schedule({});
  try {
    launch(nullptr, 1, block, kernel, arguments...);
  } catch (const Fault& fault) {
    return fault.what();
  }
  return "";
}

::testing::AssertionResult says(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << '"' << text << "\" lacks \"" << part << '"';
}

TEST(CudaOnCpu, OrdersAreWhatTheirNamesSay) {
  const std::vector<unsigned> forward = order_under({Order::kForward});
  ASSERT_EQ(forward.size(), 96U);
  EXPECT_TRUE(std::is_sorted(forward.begin(), forward.end()));
  const std::vector<unsigned> reverse = order_under({Order::kReverse});
  EXPECT_TRUE(std::equal(forward.rbegin(), forward.rend(), reverse.begin(), reverse.end()));
  std::vector<unsigned> seeded = order_under({Order::kSeeded, 3});
  EXPECT_EQ(seeded, order_under({Order::kSeeded, 3}));
  EXPECT_NE(seeded, order_under({Order::kSeeded, 4}));
  EXPECT_NE(seeded, forward);
  std::sort(seeded.begin(), seeded.end());
  EXPECT_EQ(seeded, forward);
}

TEST(CudaOnCpu, EveryThreadOfEveryBlockRunsOnceAtItsPlace) {
  set_schedule({Order::kSeeded, 5});
  DeviceMemory memory;
  unsigned* out = memory.in_out(std::vector<unsigned>(size_t{2 * 3 * 2} * 24, 0));
  launch(nullptr, dim3(2, 3, 2), dim3(4, 3, 2), record_place, out);
  for (unsigned i = 0; i < 12 * 24; ++i) ASSERT_EQ(out[i], i / 24 * 1000 + i % 24);
  EXPECT_EQ(memory.violation(), "");
}

TEST(CudaOnCpu, AMissingBarrierShows) {
  for (const bool with_barrier : {true, false}) {
    set_schedule({});
    std::vector<int> in(64), out(64);
    for (int i = 0; i < 64; ++i) in[static_cast<size_t>(i)] = i;
    launch(nullptr, 1, 64, turn_round, in.data(), out.data(), with_barrier);
    EXPECT_EQ(std::equal(in.rbegin(), in.rend(), out.begin()), with_barrier);
  }
}

TEST(CudaOnCpu, SharedMemoryIsPoisonedForEachBlock) {
  set_schedule({});
  std::vector<int> out(3);
  launch(nullptr, 3, 32, leak_shared, out.data());
  EXPECT_EQ(out, (std::vector<int>{-1, -1, -1}));
}

TEST(CudaOnCpu, MeetingsThatDoNotComeAboutAreFaults) {
  EXPECT_TRUE(says(fault_of(64, leave_before_the_barrier), "thread 5 has returned"));
  EXPECT_TRUE(says(fault_of(64, two_barriers), "divergent barrier"));
  EXPECT_TRUE(says(fault_of(32, half_a_warp), "never reach this warp operation"));
  EXPECT_TRUE(says(fault_of(32, not_in_its_mask), "not in the mask"));
  std::vector<int> out(32);
  EXPECT_TRUE(says(fault_of(32, outside_the_mask, out.data()),
                   "lane 0 reads lane 20, which is outside the mask"));
}

TEST(CudaOnCpu, ShufflesReadTheLaneThatTheyName) {
  set_schedule({Order::kReverse});
  std::vector<int> out(256);
  launch(nullptr, 1, 64, shuffles, out.data());
  for (int i = 0; i < 64; ++i) {
    const int lane = i % 32, first = i - lane;
    const size_t at = static_cast<size_t>(i);
    EXPECT_EQ(out[at], first + (lane ^ 5));
    EXPECT_EQ(out[64 + at], lane + 3 > 31 ? i : i + 3);
    EXPECT_EQ(out[128 + at], lane < 3 ? i : i - 3);
    EXPECT_EQ(out[192 + at], first + 9);
  }
}

TEST(CudaOnCpu, VotesAreOfTheLanesInTheMask) {
  set_schedule({Order::kSeeded, 1});
  std::vector<unsigned> out(64);
  launch(nullptr, 1, 32, votes, out.data());
  for (size_t lane = 0; lane < 32; ++lane) {
    EXPECT_EQ(out[2 * lane], 0xAAAAAAAAU);
    EXPECT_EQ(out[2 * lane + 1], (lane % 2 == 1 ? 0xAAAAAAAAU : 0x55555555U) & 0xFFFE0000U);
  }
}

TEST(CudaOnCpu, AtomicAdditionsAllCount) {
  int counter = 0;
  launch(nullptr, 5, 64, count, &counter);
  EXPECT_EQ(counter, 5 * 64);
}

TEST(CudaOnCpu, WritesOutsideAndToInputsShow) {
  for (const int64_t index : {int64_t{-1}, int64_t{7}, int64_t{-2048}, int64_t{2054}}) {
    DeviceMemory memory;
    const float* in = memory.input(std::vector<float>{1});
    float* out = memory.output<float>(7);
    EXPECT_EQ(memory.violation(), "");
    // A guard's own word, copied, is still a word of another array.
    launch(nullptr, 1, 1, write_at, out, index, in + 1);
    EXPECT_TRUE(says(memory.violation(), "array 1 was written outside its bounds"));
  }
  DeviceMemory memory;
  const std::vector<float> two{2};
  const float* in = memory.input(std::vector<float>{1});
  launch(nullptr, 1, 1, write_at, const_cast<float*>(in), 0, two.data());
  EXPECT_TRUE(says(memory.violation(), "though it is an input"));
}

TEST(CudaOnCpu, LaunchesThatADeviceRefusesAreRefused) {
  int counter = 0;
  EXPECT_THROW(launch(nullptr, 1, 1025, count, &counter), StatusError);
  EXPECT_THROW(launch(nullptr, dim3(1, 70000), 32, count, &counter), StatusError);
  launch(nullptr, 0, 32, count, &counter);  // no work
  EXPECT_EQ(counter, 0);
}

}  // namespace
}  // namespace weft::cuda_on_cpu
