#include "kernels/cpu/tiles.h"

#include <atomic>

#include "kernels/cpu/tiles_levels.h"
#include "proto/base/check.h"

namespace weft::cpu {
namespace {

std::atomic<int> forced{-1};  // a Level; -1: none

}  // namespace

Level tile_level(int64_t features) {
  const int own = forced.load(std::memory_order_relaxed);
  if (own >= 0) return static_cast<Level>(own);
  constexpr int64_t kPairFeatures = 16;
  return level() == Level::kBf16 && features < kPairFeatures ? Level::kV4 : level();
}

ForcedTiles::ForcedTiles(Level level) {
  WEFT_CHECK(supported(level) && forced < 0, "level {} forced", static_cast<int>(level));
  forced = static_cast<int>(level);
}
ForcedTiles::~ForcedTiles() { forced = -1; }

template <>
const TileKernels<float>& tiles_at(Level level) {
  if (level >= Level::kV4) return tiles_f32_v4;
  return level == Level::kV3 ? tiles_f32_v3 : tiles_f32_v2;
}

template <>
const TileKernels<double>& tiles_at(Level level) {
  if (level >= Level::kV4) return tiles_f64_v4;
  return level == Level::kV3 ? tiles_f64_v3 : tiles_f64_v2;
}

template <>
const TileKernels<bfloat16>& tiles_at(Level level) {
  switch (level) {
    case Level::kBf16:
      return tiles_bf16_avx512bf16;
    case Level::kV4:
      return tiles_bf16_v4;
    case Level::kV3:
      return tiles_bf16_v3;
    case Level::kV2:
      break;
  }
  return tiles_bf16_v2;
}

}  // namespace weft::cpu
