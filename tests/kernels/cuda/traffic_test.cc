// Asynchronous copies and matrix instructions of the harness mean what they say, and are caught
// where a wait or a barrier is missing.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/ptx_sm90.cuh"
#include "tests/testing/cuda_on_cpu/device_memory.h"

namespace weft::cuda_on_cpu {
namespace {

using namespace weft::cuda;  // the instructions

// ---- kernels
// Two stages of 32 x 4 floats, the second on its way while the first is read.
__global__ void two_stages(const float* in, float* out, int groups_left, bool with_barrier) {
  float* stage = shared_memory<float>();
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 2; ++i) {
    copy_16(stage + 128 * i + 4 * thread, in + 128 * i + 4 * thread, 16);
    copies_commit();
  }
  if (groups_left == 0) copies_wait<0>();
  if (groups_left == 1) copies_wait<1>();
  if (with_barrier) __syncthreads();
  for (int i = 0; i < 4; ++i) out[4 * thread + i] = stage[127 - 4 * thread - i];
  copies_wait<0>();
  __syncthreads();
  for (int i = 0; i < 4; ++i) out[128 + 4 * thread + i] = stage[255 - 4 * thread - i];
}

__global__ void part_of_a_copy(const float* in, float* out, int bytes, int64_t offset) {
  float* stage = shared_memory<float>();
  copy_16(stage + offset, in, bytes);
  copies_commit();
  copies_wait<0>();
  for (int i = 0; i < 4; ++i) out[i] = stage[i];
}

__global__ void write_past(int bytes) { shared_memory<char>()[bytes] = 1; }

// d = a b of [16, 16] and [16, 8] (tf32: [16, 8], [8, 8]), all row-major.
template <typename T>
__global__ void product(const float* a, const float* b, float* d, bool by_matrices) {
  const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
  T* left = shared_memory<T>();
  T* right = left + 16 * 16;
  for (int i = lane; i < 256; i += 32) left[i] = narrow<T>(a[i]);
  for (int i = lane; i < 128; i += 32) right[i / 8 * 16 + i % 8] = narrow<T>(b[i]);
  __syncthreads();
  uint32_t fa[4], fb[2], r[4];
  if (by_matrices) {
    load_matrices(fa, left + lane % 16 * 16 + lane / 16 * 8);
    load_matrices_transposed(r, right + lane % 16 * 16);
    fb[0] = r[0];
    fb[1] = r[1];
  } else {
    const auto pair = [](T low, T high) { return narrow_pair<T>(widen(low), widen(high)); };
    for (int i = 0; i < 4; ++i) {
      const T* at = left + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
      fa[i] = pair(at[0], at[1]);
    }
    for (int i = 0; i < 2; ++i) {
      const T* at = right + (2 * t + 8 * i) * 16 + g;
      fb[i] = pair(at[0], at[16]);
    }
  }
  float sum[4] = {};
  multiply_add<T>(sum, fa, fb);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}

__global__ void product_tf32(const float* a, const float* b, float* d) {
  const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
  uint32_t fa[4], fb[2];
  for (int i = 0; i < 4; ++i) fa[i] = bits_of_float(a[(g + i % 2 * 8) * 8 + t + i / 2 * 4]);
  for (int i = 0; i < 2; ++i) fb[i] = bits_of_float(b[(t + 4 * i) * 8 + g]);
  float sum[4] = {};
  multiply_add_tf32(sum, fa, fb);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}

__global__ void matches(unsigned* out) {
  out[threadIdx.x] = __match_any_sync(0xFFFFFFFFU, threadIdx.x % 3);
}

__global__ void vote_of_a_block(int* out) {
  const int count = __syncthreads_count(threadIdx.x % 4 == 0);
  out[threadIdx.x] = __syncthreads_or(threadIdx.x == 40) != 0 ? count : -1;
}

// Ones times ones, 16 deep.
enum class Mistake { kNone, kReadsEarly, kOverwrites, kNoFence };
__global__ void group_of_ones(float* out, Mistake mistake) {
  auto* tiles = shared_memory<bfloat16>();
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < 8192; i += 128) tiles[i] = narrow<bfloat16>(1.0F);
  __syncthreads();
  float sums[8][4] = {};
  if (mistake != Mistake::kNoFence) cuda::group_fence();
  multiply_group<bfloat16>(sums, matrix_by_rows(tiles), matrix_by_rows(tiles + 4096), true);
  group_commit();
  out[thread] = sums[7][3];
  if (mistake == Mistake::kOverwrites) tiles[thread] = narrow<bfloat16>(2.0F);
  cuda::group_wait<0>(sums);
  if (mistake != Mistake::kReadsEarly) out[thread] = sums[7][3];
}

// A box of 8 tokens; the wait for it may be left out.
__global__ void box_of_ones(const __grid_constant__ TensorMap map, uint16_t* out, int bytes,
                            bool waits) {
  auto* tile = shared_memory<uint16_t>();
  auto* barrier = reinterpret_cast<Barrier*>(tile + 512);
  cuda::barrier_init(barrier, 1);
  cuda::barrier_expect(barrier, bytes);
  cuda::copy_box(tile, &map, {0, 0, 0, 0}, barrier);
  if (waits) cuda::barrier_wait(barrier, 0);
  for (int i = 0; i < 512; ++i) out[i] = tile[i];
}

// ---- tests
bool stages_are_right(int groups_left, bool with_barrier) {
  set_schedule({Order::kReverse});
  alignas(16) float in[256];
  float out[256];
  std::iota(in, in + 256, 1.0F);
  launch_shared(nullptr, 1, 32, sizeof(in), two_stages, &in[0], &out[0], groups_left, with_barrier);
  bool right = true;
  for (int i = 0; i < 256; ++i) right = right && out[i] == in[i / 128 * 128 + 127 - i % 128];
  return right;
}

TEST(CudaOnCpuTraffic, ACopyIsThereAfterItsWaitAndABarrier) {
  EXPECT_TRUE(stages_are_right(1, true));
  EXPECT_TRUE(stages_are_right(0, true));
  EXPECT_FALSE(stages_are_right(2, true)) << "no wait";
  EXPECT_FALSE(stages_are_right(1, false)) << "no barrier";
}

TEST(CudaOnCpuTraffic, ACopyFillsUpWithZeros) {
  for (const int bytes : {0, 4, 12, 16}) {
    alignas(16) const float in[4] = {1, 2, 3, 4};
    float out[4];
    launch_shared(nullptr, 1, 1, 16, part_of_a_copy, &in[0], &out[0], bytes, int64_t{0});
    for (int i = 0; i < 4; ++i) EXPECT_EQ(out[i], 4 * i < bytes ? in[i] : 0.0F);
  }
}

template <typename Work>
std::string fault_of(const Work& work) {
  try {
    work();
  } catch (const Fault& fault) {
    return fault.what();
  }
  return "";
}

TEST(CudaOnCpuTraffic, WhatLiesOutsideSharedMemoryIsAFault) {
  alignas(16) const float in[4] = {1, 2, 3, 4};
  float out[4];
  const auto copy_to = [&](int64_t offset) {
    return fault_of([&] {
      launch_shared(nullptr, 1, 1, 32, part_of_a_copy, &in[0], &out[0], 16, int64_t{offset});
    });
  };
  EXPECT_EQ(copy_to(4), "");
  EXPECT_NE(copy_to(8).find("an address outside shared memory"), std::string::npos);
  EXPECT_NE(copy_to(2).find("not aligned"), std::string::npos);
  for (const int at : {-1, 64}) {
    EXPECT_NE(fault_of([&] {
                launch_shared(nullptr, 1, 1, 64, write_past, at);
              }).find("written outside its 64 bytes"),
              std::string::npos);
  }
}

std::vector<float> rounded(const std::vector<float>& values, float (*round)(float)) {
  std::vector<float> result;
  for (const float value : values) result.push_back(round(value));
  return result;
}

std::vector<float> wave(int n, float step) {
  std::vector<float> values(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i)
    values[static_cast<size_t>(i)] = std::sin(step * static_cast<float>(i));
  return values;
}

// Of products below 1: to what 17 terms and the sum lose by being cut off (meaning.h).
void expect_product(const std::vector<float>& a, const std::vector<float>& b, const float* d,
                    int depth) {
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      double sum = 0;
      for (int k = 0; k < depth; ++k) {
        sum += static_cast<double>(a[static_cast<size_t>(row * depth + k)]) *
               static_cast<double>(b[static_cast<size_t>(k * 8 + column)]);
      }
      EXPECT_NEAR(static_cast<double>(d[row * 8 + column]), sum, 0x1p-19) << row << ", " << column;
    }
  }
}

TEST(CudaOnCpuTraffic, ProductsAndMatrixLoadsHoldWhatTheirCommentsSay) {
  const std::vector<float> a = wave(256, 0.37F), b = wave(128, 0.71F);
  float d[128];
  for (const bool by_matrices : {true, false}) {
    launch_shared(nullptr, 1, 32, 1024, product<bfloat16>, a.data(), b.data(), &d[0], by_matrices);
    const auto to_bf16 = [](float x) { return static_cast<float>(bfloat16(x)); };
    expect_product(rounded(a, to_bf16), rounded(b, to_bf16), d, 16);
    launch_shared(nullptr, 1, 32, 1024, product<float16>, a.data(), b.data(), &d[0], by_matrices);
    const auto to_f16 = [](float x) { return static_cast<float>(float16(x)); };
    expect_product(rounded(a, to_f16), rounded(b, to_f16), d, 16);
  }
  const std::vector<float> left(a.begin(), a.begin() + 128), right(b.begin(), b.begin() + 64);
  const auto cut = [](float x) { return float_of_bits(bits_of_float(x) & ~0x1FFFU); };
  launch(nullptr, 1, 32, product_tf32, left.data(), right.data(), &d[0]);
  expect_product(rounded(left, cut), rounded(right, cut), d, 8);
}

TEST(CudaOnCpuTraffic, GroupProductsAreThereAfterTheirWait) {
  float out[128];
  const auto run = [&](Mistake mistake) {
    return fault_of(
        [&] { launch_shared(nullptr, 1, 128, 16384, group_of_ones, &out[0], mistake); });
  };
  EXPECT_EQ(run(Mistake::kNone), "");
  for (const float sum : out) EXPECT_EQ(sum, 16.0F);
  EXPECT_EQ(run(Mistake::kReadsEarly), "");
  for (const float sum : out) EXPECT_TRUE(std::isnan(sum));
  EXPECT_EQ(run(Mistake::kOverwrites), "");
  EXPECT_TRUE(std::isnan(out[0])) << "an operand changed under way";
  EXPECT_NE(run(Mistake::kNoFence).find("without a fence"), std::string::npos);
}

TEST(CudaOnCpuTraffic, ABoxIsThereWhenItsBytesAre) {
  alignas(16) uint16_t in[5 * 8];
  std::fill_n(in, 40, uint16_t{7});
  MappedArray array{.data = in, .features = 8, .tokens = 5, .heads = 1, .rows = 1};
  array.token_step = 8;
  array.box_tokens = 8;
  TensorMap map;
  ASSERT_TRUE(make_tensor_map(array, map));
  uint16_t out[512];
  const auto run = [&](int bytes, bool waits) {
    return fault_of([&] {
      launch_shared(nullptr, 1, 1, 1024 + sizeof(Barrier), box_of_ones, map, &out[0], bytes, waits);
    });
  };
  EXPECT_EQ(run(1024, true), "");
  EXPECT_EQ(std::count(out, out + 512, 7), 40);
  EXPECT_EQ(std::count(out, out + 512, 0), 472) << "zeros past the ends";
  EXPECT_EQ(run(1024, false), "");
  EXPECT_EQ(std::count(out, out + 512, 0xFFFF), 512) << "not waited for";
  EXPECT_NE(run(1025, true).find("nothing ends the wait"), std::string::npos);
  array.token_step = 9;
  EXPECT_FALSE(make_tensor_map(array, map)) << "rows that are not multiples of 16 bytes";
}

TEST(CudaOnCpuTraffic, MatchesAndVotesOfABlock) {
  unsigned same[32];
  launch(nullptr, 1, 32, matches, &same[0]);
  for (unsigned lane = 0; lane < 32; ++lane) EXPECT_EQ(same[lane], 0x49249249U << lane % 3);
  int votes[64];
  launch(nullptr, 1, 64, vote_of_a_block, &votes[0]);
  for (const int vote : votes) EXPECT_EQ(vote, 16);
}

}  // namespace
}  // namespace weft::cuda_on_cpu
