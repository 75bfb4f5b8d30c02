// AMX's instructions in C++: another unit for the code of kernels/cpu/tiles_amx_body.h.
//
// What the processor would answer with a fault (a tile without a shape, shapes that do not fit) is
// a failed CHECK. Arithmetic is that of the manual's operation of TDPBF16PS, order included.
//
// Thread safety: tiles belong to the thread.
#pragma once

#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/amx.h"
#include "proto/base/check.h"

namespace weft::testing {

class AmxOnCpu {
 public:
  static void shape(const cpu::AmxShapes& shapes) {
    WEFT_CHECK(shapes.palette == 1 && shapes.start_row == 0, "palette {}", shapes.palette);
    for (int i = 0; i < cpu::kAmxTiles; ++i) {
      const int rows = shapes.rows[i], bytes = shapes.row_bytes[i];
      WEFT_CHECK(rows <= cpu::kAmxRows && bytes <= cpu::kAmxBytes && (rows == 0) == (bytes == 0),
                 "tile {}: {} rows of {} bytes", i, rows, bytes);
    }
    state = State{true, shapes, {}};
  }
  static void release() { state.shaped = false; }
  template <int kTile>
  static void zero() {
    (void)rows_of(kTile);
    state.tiles[kTile] = Tile();
  }
  template <int kTile>
  static void load(const void* from, int64_t stride_bytes) {
    const int rows = rows_of(kTile);
    Tile tile{};
    for (int i = 0; i < rows; ++i) {
      std::memcpy(tile[static_cast<size_t>(i)].data(),
                  static_cast<const char*>(from) + i * stride_bytes, bytes_of(kTile));
    }
    state.tiles[kTile] = tile;
  }
  template <int kTile>
  static void store(void* to, int64_t stride_bytes) {
    for (int i = 0; i < rows_of(kTile); ++i) {
      std::memcpy(static_cast<char*>(to) + i * stride_bytes,
                  state.tiles[kTile][static_cast<size_t>(i)].data(), bytes_of(kTile));
    }
  }
  template <int kSum, int kA, int kB>
  static void multiply_add() {
    const auto words = bytes_of(kA) / 4, columns = bytes_of(kSum) / 4;
    WEFT_CHECK(rows_of(kSum) == rows_of(kA) && rows_of(kB) == static_cast<int>(words) &&
                   bytes_of(kB) == bytes_of(kSum),
               "sums of {} rows, {} words of {}", rows_of(kSum), words, rows_of(kB));
    for (int i = 0; i < rows_of(kSum); ++i) {
      const auto row = static_cast<size_t>(i);
      for (size_t j = 0; j < columns; ++j) {
        float first = 0, second = 0;
        for (size_t k = 0; k < words; ++k) {
          const uint32_t a = state.tiles[kA][row][k], b = state.tiles[kB][k][j];
          first = flushed(std::fma(flushed(low(a)), flushed(low(b)), first));
          second = flushed(std::fma(flushed(high(a)), flushed(high(b)), second));
        }
        uint32_t& sum = state.tiles[kSum][row][j];
        const float both = flushed(first + second);
        sum = bits(flushed(flushed(value(sum)) + both));
      }
    }
  }

 private:
  using Tile = std::array<std::array<uint32_t, cpu::kAmxBytes / 4>, cpu::kAmxRows>;
  struct State {
    bool shaped;
    cpu::AmxShapes shapes;
    std::array<Tile, cpu::kAmxTiles> tiles;
  };
  static inline thread_local State state{};

  static int rows_of(int tile) {
    WEFT_CHECK(state.shaped && state.shapes.rows[tile] > 0, "tile {} has no shape", tile);
    return state.shapes.rows[tile];
  }
  static size_t bytes_of(int tile) { return state.shapes.row_bytes[tile]; }
  static float value(uint32_t word) { return __builtin_bit_cast(float, word); }
  static uint32_t bits(float x) { return __builtin_bit_cast(uint32_t, x); }
  static float low(uint32_t pair) { return value(pair << 16); }
  static float high(uint32_t pair) { return value(pair & 0xFFFF0000U); }
  static float flushed(float x) {
    return std::abs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0F, x) : x;
  }
};

}  // namespace weft::testing
