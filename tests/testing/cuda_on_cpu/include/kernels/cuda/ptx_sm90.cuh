// What the instructions of kernels/cuda/ptx_sm90.cuh mean, on a CPU; it stands in for that file.
#pragma once

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"
#include "tests/testing/cuda_on_cpu/warp_group.h"

namespace weft::cuda {

using Barrier = uint64_t;
inline void barrier_init(Barrier* barrier, unsigned arrivals,
                         const Where& where = Where::current()) {
  cuda_on_cpu::barrier_init(barrier, arrivals, where);
}
inline void barrier_init_fence() {}
inline void barrier_arrive(Barrier* barrier, const Where& where = Where::current()) {
  cuda_on_cpu::barrier_arrive(barrier, 0, where);
}
inline void barrier_expect(Barrier* barrier, int bytes, const Where& where = Where::current()) {
  cuda_on_cpu::barrier_arrive(barrier, bytes, where);
}
inline void barrier_wait(Barrier* barrier, unsigned parity, const Where& where = Where::current()) {
  cuda_on_cpu::barrier_wait(barrier, parity != 0, where);
}

inline void async_fence() {}

struct BoxPlace {
  int feature, token, head, row;
};
inline void copy_box(void* to_shared, const TensorMap* map, const BoxPlace& at, Barrier* barrier,
                     const Where& where = Where::current()) {
  cuda_on_cpu::copy_box(to_shared, *map, {at.feature, at.token, at.head, at.row}, barrier, where);
}

template <int kRegisters>
void take_registers() {}
template <int kRegisters>
void leave_registers() {}

inline uint64_t matrix_by_rows(const void* shared) {
  return uint64_t{1} << 62 | uint64_t{64} << 32 | uint64_t{1} << 16 |
         cuda_on_cpu::shared_address(shared) >> 4;
}
inline uint64_t matrix_by_columns(const void* shared, int panel_bytes) {
  return uint64_t{1} << 62 | uint64_t{64} << 32 | static_cast<uint64_t>(panel_bytes / 16) << 16 |
         cuda_on_cpu::shared_address(shared) >> 4;
}

inline void group_fence() { cuda_on_cpu::group_fence(); }
inline void group_commit() { cuda_on_cpu::product_commit(); }
template <int kLeft, int kTiles>
void group_wait(float (&)[kTiles][4], const Where& where = Where::current()) {
  cuda_on_cpu::group_wait(kLeft, where);
}
template <typename T, int kTiles>
void multiply_group(float (&d)[kTiles][4], uint64_t a, uint64_t b, bool accumulate,
                    const Where& where = Where::current()) {
  constexpr auto kKind = std::is_same_v<T, bfloat16> ? cuda_on_cpu::Element::kBfloat16
                                                     : cuda_on_cpu::Element::kFloat16;
  cuda_on_cpu::group_multiply({kKind, &d[0][0], 8 * kTiles, accumulate, nullptr, a, b}, where);
}
template <typename T, int kTiles>
void multiply_group(float (&d)[kTiles][4], const uint32_t (&a)[4], uint64_t b, bool accumulate,
                    const Where& where = Where::current()) {
  constexpr auto kKind = std::is_same_v<T, bfloat16> ? cuda_on_cpu::Element::kBfloat16
                                                     : cuda_on_cpu::Element::kFloat16;
  cuda_on_cpu::group_multiply({kKind, &d[0][0], 8 * kTiles, accumulate, &a[0], 0, b}, where);
}

}  // namespace weft::cuda
