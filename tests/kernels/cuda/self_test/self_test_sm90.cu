// The instructions of kernels/cuda/ptx_sm90.cuh.
#include <cmath>
#include <cstring>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx_sm90.cuh"
#include "tests/kernels/cuda/self_test/both.h"
#include "tests/kernels/cuda/self_test/self_test.h"
#include "tests/testing/cuda_on_cpu/meaning.h"

namespace weft::cuda {
namespace {

using cuda_on_cpu::Element;
using cuda_on_cpu::Lanes;

constexpr int kGroup = 128;          // threads
constexpr size_t kTileRoom = 16384;  // bytes: 128 tokens of 64 features

// ---- boxes: one in the middle of an array, one over its end.
__global__ void box_kernel(const __grid_constant__ TensorMap map, BoxPlace at, int bytes,
                           uint16_t* out) {
  auto* tile = shared_memory<unsigned char>();
  auto* barrier = reinterpret_cast<Barrier*>(tile + kTileRoom);
  if (threadIdx.x == 0) {
    barrier_init(barrier, 1);
    barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    barrier_expect(barrier, bytes);
    copy_box(tile, &map, at, barrier);
  }
  barrier_wait(barrier, 0);
  const auto* elements = reinterpret_cast<const uint16_t*>(tile);
  for (int i = static_cast<int>(threadIdx.x); i < bytes / 2; i += kGroup) out[i] = elements[i];
}

std::string check_boxes() {
  constexpr int64_t kRows = 2, kHeads = 3, kTokens = 37, kFeatures = 72;
  constexpr int kBoxTokens = 32;
  Both<uint16_t> in(static_cast<size_t>(kRows * kTokens * kHeads * kFeatures));
  Both<uint16_t> out(kBoxTokens * 64);
  for (size_t i = 0; i < in.host.size(); ++i) in.host[i] = static_cast<uint16_t>(i + 1);
  MappedArray array;  // [row, token, head, feature] in memory
  array.data = in.sent();
  array.features = kFeatures;
  array.tokens = kTokens;
  array.heads = kHeads;
  array.rows = kRows;
  array.token_step = kHeads * kFeatures;
  array.head_step = kFeatures;
  array.row_step = kTokens * kHeads * kFeatures;
  array.box_tokens = kBoxTokens;
  TensorMap map;
  if (!make_tensor_map(array, map)) return "the driver makes no tensor map";
  for (const BoxPlace& at : {BoxPlace{0, 3, 1, 0}, BoxPlace{64, 20, 2, 1}}) {
    launch_shared(nullptr, 1, kGroup, kTileRoom + sizeof(Barrier), box_kernel, map, at,
                  kBoxTokens * 128, out.sent());
    out.fetch();
    for (int token = 0; token < kBoxTokens; ++token) {
      for (int feature = 0; feature < 64; ++feature) {
        const int64_t t = at.token + token, f = at.feature + feature;
        const int64_t from =
            at.row * array.row_step + t * array.token_step + at.head * array.head_step + f;
        const uint16_t want =
            t < kTokens && f < kFeatures ? in.host[static_cast<size_t>(from)] : uint16_t{0};
        const size_t place =
            cuda_on_cpu::swizzled_128(static_cast<uint32_t>(token * 128 + feature * 2)) / 2;
        if (out.host[place] != want) return differs_at(place, out.host[place], want);
      }
    }
  }
  return "";
}

// ---- products: a [64, 64] times b over four steps of 16, then once more on top of it.
template <typename T, int kTiles, bool kRegisters>
__global__ void group_kernel(const uint16_t* left, const uint16_t* right, float* d) {
  auto* a = shared_memory<unsigned char>();
  unsigned char* b = a + kTileRoom;
  auto* to_a = reinterpret_cast<uint16_t*>(a);
  auto* to_b = reinterpret_cast<uint16_t*>(b);
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < static_cast<int>(kTileRoom / 2); i += kGroup) {
    to_a[i] = left[i];
    to_b[i] = right[i];
  }
  async_fence();
  __syncthreads();
  float sums[kTiles][4];
  uint32_t fragments[4][4];
  for (int step = 0; step < 4; ++step) {  // any values: the left image's first words
    for (int i = 0; i < 4; ++i) {
      fragments[step][i] = reinterpret_cast<const uint32_t*>(left)[(thread * 4 + step) * 4 + i];
    }
  }
  group_fence();
  WEFT_UNROLL
  for (int round = 0; round < 2; ++round) {
    WEFT_UNROLL
    for (int step = 0; step < 4; ++step) {
      const bool more = round + step > 0;
      if constexpr (kRegisters) {
        multiply_group<T>(sums, fragments[step], matrix_by_columns(b + step * 2048, 8192), more);
      } else {
        multiply_group<T>(sums, matrix_by_rows(a + step * 32), matrix_by_rows(b + step * 32), more);
      }
    }
    group_commit();
  }
  group_wait<0>(sums);
  for (int i = 0; i < 4 * kTiles; ++i) d[thread * 4 * kTiles + i] = sums[i / 4][i % 4];
}

// The same by the meanings, from images of shared memory.
template <int kTiles, bool kRegisters>
std::vector<float> group_meaning(Element kind, const std::vector<uint16_t>& left,
                                 const std::vector<uint16_t>& right) {
  constexpr int kColumns = 8 * kTiles;
  std::vector<float> d(kGroup * 4 * kTiles);
  const auto* a = reinterpret_cast<const std::byte*>(left.data());
  const auto* b = reinterpret_cast<const std::byte*>(right.data());
  const auto* words = reinterpret_cast<const uint32_t*>(left.data());
  for (int warp = 0; warp < 4; ++warp) {
    for (int round = 0; round < 8; ++round) {
      const int step = round % 4;
      float rows[16 * 16], columns[16 * kColumns];
      cuda_on_cpu::MatrixView view{static_cast<uint32_t>(step * 32), 16, 1024, 1};
      Lanes<const uint32_t*> fragments;
      Lanes<float*> to;
      for (int lane = 0; lane < 32; ++lane) {
        const int thread = 32 * warp + lane;
        fragments[lane] = words + (thread * 4 + step) * 4;
        to[lane] = &d[static_cast<size_t>(thread * 4 * kTiles)];
      }
      if (kRegisters) {
        cuda_on_cpu::gather_left(kind, fragments, rows);
        view = {static_cast<uint32_t>(step * 2048), 8192, 1024, 1};
      } else {
        cuda_on_cpu::gather_left(kind, a, view, 16 * warp, rows);
      }
      cuda_on_cpu::gather_right(kind, b, view, kRegisters, kColumns, columns);
      cuda_on_cpu::group_multiply_of(kind, rows, columns, kColumns, round > 0, to);
    }
  }
  return d;
}

template <typename T, int kTiles, bool kRegisters>
std::string check_group(bool integers, double tolerance) {
  constexpr Element kKind = std::is_same_v<T, bfloat16> ? Element::kBfloat16 : Element::kFloat16;
  Both<uint16_t> left(kTileRoom / 2), right(kTileRoom / 2);
  Both<float> d(kGroup * 4 * kTiles);
  const auto value = [integers](size_t i) {
    if (integers) return static_cast<float>(static_cast<int>(i * 37 % 17) - 8);
    return std::sin(static_cast<float>(i));
  };
  for (size_t i = 0; i < left.host.size(); ++i) {
    left.host[i] = T(value(i)).bits;
    right.host[i] = T(value(3 * i + 5)).bits;
  }
  launch_shared(nullptr, 1, kGroup, 2 * kTileRoom, group_kernel<T, kTiles, kRegisters>, left.sent(),
                right.sent(), d.sent());
  d.fetch();
  const std::vector<float> want = group_meaning<kTiles, kRegisters>(kKind, left.host, right.host);
  for (size_t i = 0; i < want.size(); ++i) {
    const double got = static_cast<double>(d.host[i]), due = static_cast<double>(want[i]);
    if (!(std::abs(got - due) <= tolerance)) return differs_at(i, got, due);
  }
  return "";
}

template <typename T>
std::string check_groups(bool integers, double tolerance) {
  for (const std::string& finding : {check_group<T, 4, false>(integers, tolerance),
                                     check_group<T, 8, false>(integers, tolerance),
                                     check_group<T, 16, false>(integers, tolerance),
                                     check_group<T, 8, true>(integers, tolerance),
                                     check_group<T, 16, true>(integers, tolerance)}) {
    if (!finding.empty()) return finding;
  }
  return "";
}

}  // namespace

std::vector<SelfTestResult> self_test_sm90() {
  return {{"barrier_*, copy_box", check_boxes()},
          {"multiply_group<bfloat16>, exactly", check_groups<bfloat16>(true, 0)},
          {"multiply_group<bfloat16>", check_groups<bfloat16>(false, 1e-4)},
          {"multiply_group<bfloat16>, its bits", check_groups<bfloat16>(false, 0)},
          {"multiply_group<float16>, exactly", check_groups<float16>(true, 0)},
          {"multiply_group<float16>", check_groups<float16>(false, 1e-4)},
          {"multiply_group<float16>, its bits", check_groups<float16>(false, 0)}};
}

}  // namespace weft::cuda
