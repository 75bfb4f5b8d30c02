// Instructions of sm_90a that C++ has no words for, one function each: barrier objects, bulk copies
// by tensor maps, products of a warp group (128 threads, an aligned four of the block's warps).
// What ptx.cuh says of its functions and of the twin in the tests' harness holds here.
#pragma once

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"

namespace weft::cuda {

// ---- barrier objects in shared memory (mbarrier). A phase ends when `arrivals` have come and the
// bytes that were expected in it are there; the first phase has parity 0.
using Barrier = uint64_t;
__device__ inline void barrier_init(Barrier* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(arrivals)
               : "memory");
}
// Behind the inits of a thread, before the block's barrier: the copy engine sees them too.
__device__ inline void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void barrier_arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}
// An arrival, and `bytes` more to come in this phase.
__device__ inline void barrier_expect(Barrier* barrier, int bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}
// Until the phase of that parity has ended.
__device__ inline void barrier_wait(Barrier* barrier, unsigned parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// Behind writes to shared memory that products or bulk copies of it come after, before the barrier.
__device__ inline void async_fence() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- bulk copies (cp.async.bulk.tensor): the box of the map at these coordinates, to shared
// memory at a multiple of 1024 bytes, zeros where the tensor ends; the barrier's phase counts its
// bytes.
struct BoxPlace {
  int feature, token, head, row;
};
__device__ inline void copy_box(void* to_shared, const TensorMap* map, const BoxPlace& at,
                                Barrier* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, "
      "%3, %4, %5}], [%6];" ::"r"(shared_address(to_shared)),
      "l"(map), "r"(at.feature), "r"(at.token), "r"(at.head), "r"(at.row),
      "r"(shared_address(barrier))
      : "memory");
}

// ---- registers of a thread of this warp group (setmaxnreg): a multiple of 8, all its warps.
template <int kRegisters>
__device__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ void leave_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// ---- matrices in shared memory as products take them: rows of 128 bytes (64 half-width elements),
// whose chunks of 16 bytes lie swizzled by bits 7 to 9 of their address, as copy_box leaves them.
//   By rows (K-major): row r, element k of [rows, K] at `shared` + 128 r + 2 k; K up to 64 - first.
//   By columns (MN-major): the transposed of [K, columns], in panels of 64 columns, `panel_bytes`
//   from one to the next.
// Every eight rows lie 1024 bytes from the last eight.
__device__ inline uint64_t matrix_by_rows(const void* shared) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62, kEightRows = uint64_t{1024 / 16} << 32;
  return kSwizzle128 | kEightRows | uint64_t{1} << 16 | (shared_address(shared) & 0x3FFFF) >> 4;
}
__device__ inline uint64_t matrix_by_columns(const void* shared, int panel_bytes) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62, kEightRows = uint64_t{1024 / 16} << 32;
  return kSwizzle128 | kEightRows | static_cast<uint64_t>(panel_bytes / 16) << 16 |
         (shared_address(shared) & 0x3FFFF) >> 4;
}

// ---- products of a warp group (wgmma), accumulated in fp32, under way until they are waited for:
// neither their sums nor their left operand's registers nor their matrices may be touched before.
//   d[tile][0..3] of warp w of the group: rows 16w + g, 16w + g, 16w + g + 8, 16w + g + 8; columns
//   8 tile + 2t, 8 tile + 2t + 1, and the same two again; a as multiply_add's, of rows 16w on.
// Before the first product behind a write of such registers:
__device__ inline void group_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void group_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until no more than kLeft committed groups are under way; `sums` are what is ready then.
template <int kLeft, int kTiles>
__device__ void group_wait(float (&sums)[kTiles][4]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
  WEFT_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    WEFT_UNROLL
    for (int i = 0; i < 4; ++i) asm volatile("" : "+f"(sums[tile][i])::"memory");
  }
}

#define WEFT_SUM(t) "+f"(d[t][0]), "+f"(d[t][1]), "+f"(d[t][2]), "+f"(d[t][3])
#define WEFT_SUMS_4 WEFT_SUM(0), WEFT_SUM(1), WEFT_SUM(2), WEFT_SUM(3)
#define WEFT_SUMS_8                                                                          \
  WEFT_SUM(0), WEFT_SUM(1), WEFT_SUM(2), WEFT_SUM(3), WEFT_SUM(4), WEFT_SUM(5), WEFT_SUM(6), \
      WEFT_SUM(7)
#define WEFT_SUMS_16                                                                             \
  WEFT_SUMS_8, WEFT_SUM(8), WEFT_SUM(9), WEFT_SUM(10), WEFT_SUM(11), WEFT_SUM(12), WEFT_SUM(13), \
      WEFT_SUM(14), WEFT_SUM(15)
#define WEFT_NAMES_4 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define WEFT_NAMES_8                                                                      \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, " \
  "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WEFT_NAMES_16                                                                            \
  WEFT_NAMES_8                                                                                   \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, " \
  "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
// d = a b (accumulate: d += a b) with a [64, 16] and b [16, columns] both by rows in shared memory.
#define WEFT_MULTIPLY_SHARED(columns, tiles, type, a_name, b_name, p_name)            \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " p_name                             \
               ", 0;\n"                                                               \
               "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type   \
               " {" WEFT_NAMES_##tiles "}, " a_name ", " b_name ", p, 1, 1, 0, 0;\n}" \
               : WEFT_SUMS_##tiles                                                    \
               : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)))
// The same with a in registers and b by columns.
#define WEFT_MULTIPLY_REGISTERS(columns, tiles, type, a_names, b_name, p_name)        \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " p_name                             \
               ", 0;\n"                                                               \
               "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type   \
               " {" WEFT_NAMES_##tiles "}, {" a_names "}, " b_name ", p, 1, 1, 1;\n}" \
               : WEFT_SUMS_##tiles                                                    \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),                  \
                 "r"(static_cast<int>(accumulate)))

template <typename T, int kTiles>
__device__ void multiply_group(float (&d)[kTiles][4], uint64_t a, uint64_t b, bool accumulate) {
  static_assert(kTiles == 4 || kTiles == 8 || kTiles == 16);
  if constexpr (std::is_same_v<T, bfloat16>) {
    if constexpr (kTiles == 4) WEFT_MULTIPLY_SHARED("32", 4, "bf16", "%16", "%17", "%18");
    if constexpr (kTiles == 8) WEFT_MULTIPLY_SHARED("64", 8, "bf16", "%32", "%33", "%34");
    if constexpr (kTiles == 16) WEFT_MULTIPLY_SHARED("128", 16, "bf16", "%64", "%65", "%66");
  } else {
    if constexpr (kTiles == 4) WEFT_MULTIPLY_SHARED("32", 4, "f16", "%16", "%17", "%18");
    if constexpr (kTiles == 8) WEFT_MULTIPLY_SHARED("64", 8, "f16", "%32", "%33", "%34");
    if constexpr (kTiles == 16) WEFT_MULTIPLY_SHARED("128", 16, "f16", "%64", "%65", "%66");
  }
}
template <typename T, int kTiles>
__device__ void multiply_group(float (&d)[kTiles][4], const uint32_t (&a)[4], uint64_t b,
                               bool accumulate) {
  static_assert(kTiles == 8 || kTiles == 16);
  if constexpr (std::is_same_v<T, bfloat16>) {
    if constexpr (kTiles == 8) {
      WEFT_MULTIPLY_REGISTERS("64", 8, "bf16", "%32, %33, %34, %35", "%36", "%37");
    } else {
      WEFT_MULTIPLY_REGISTERS("128", 16, "bf16", "%64, %65, %66, %67", "%68", "%69");
    }
  } else {
    if constexpr (kTiles == 8) {
      WEFT_MULTIPLY_REGISTERS("64", 8, "f16", "%32, %33, %34, %35", "%36", "%37");
    } else {
      WEFT_MULTIPLY_REGISTERS("128", 16, "f16", "%64, %65, %66, %67", "%68", "%69");
    }
  }
}
#undef WEFT_MULTIPLY_REGISTERS
#undef WEFT_MULTIPLY_SHARED
#undef WEFT_NAMES_16
#undef WEFT_NAMES_8
#undef WEFT_NAMES_4
#undef WEFT_SUMS_16
#undef WEFT_SUMS_8
#undef WEFT_SUMS_4
#undef WEFT_SUM

}  // namespace weft::cuda
