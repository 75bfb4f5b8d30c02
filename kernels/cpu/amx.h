// AMX's instructions for tiles of bf16, each in a function of its own: the code of tiles_amx_body.h
// is written for a Unit with these functions, of which tests/testing/amx_on_cpu.h has another one
// in C++, so that it runs where there is no AMX.
//
// A tile has up to 16 rows of up to 64 bytes; what it has is told by AmxShapes before it is used.
// Terms as in Intel's Architecture Instruction Set Extensions, chapter 3.
//
// Thread safety: tiles belong to the thread.
#pragma once

#include <cstdint>

namespace weft::cpu {

inline constexpr int kAmxRows = 16, kAmxBytes = 64, kAmxTiles = 8;

// The operand of LDTILECFG.
struct alignas(64) AmxShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(AmxShapes) == 64);

struct AmxUnit {
  // Tiles of these shapes, all zero.
  static void shape(const AmxShapes& shapes) { asm volatile("ldtilecfg %0" ::"m"(shapes)); }
  // No tiles: the system need not save them.
  static void release() { asm volatile("tilerelease"); }
  template <int kTile>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  // Row i from `from` + i * stride_bytes.
  template <int kTile>
  static void load(const void* from, int64_t stride_bytes) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride_bytes), "i"(kTile)
                 : "memory");
  }
  template <int kTile>
  static void store(void* to, int64_t stride_bytes) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride_bytes), "i"(kTile)
                 : "memory");
  }
  // kSum[i, j] += kA[i, k] kB[k, j] over pairs k of bf16: the products of first elements and those
  // of second ones are summed apart, by fused multiply-adds from zero in the order of k; then the
  // two sums are added, then the old value. Rounds to nearest even, subnormals count and come as
  // zero.
  template <int kSum, int kA, int kB>
  static void multiply_add() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
  }
};

}  // namespace weft::cpu
