#include "kernels/cpu/tiles.h"

#include <atomic>

#include "kernels/cpu/tiles_levels.h"
#include "proto/base/check.h"

namespace weft::cpu {
namespace {

std::atomic<int> forced{-1};  // a Level; -1: none
std::atomic<const TileKernels<bfloat16>*> forced_table{nullptr};

}  // namespace

Level tile_level(int64_t features) {
  const int own = forced.load(std::memory_order_relaxed);
  if (own >= 0) return static_cast<Level>(own);
  constexpr int64_t kPairFeatures = 16;
  return level() >= Level::kBf16 && features < kPairFeatures ? Level::kV4 : level();
}

ForcedTiles::ForcedTiles(Level level) {
  WEFT_CHECK(supported(level) && forced < 0, "level {} forced", static_cast<int>(level));
  forced = static_cast<int>(level);
}
ForcedTiles::ForcedTiles(const TileKernels<bfloat16>& table) {
  WEFT_CHECK(forced_table == nullptr, "tables of tiles forced twice");
  forced_table = &table;
}
ForcedTiles::~ForcedTiles() {
  forced = -1;
  forced_table = nullptr;
}

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
  if (const auto* table = forced_table.load(std::memory_order_relaxed)) return *table;
  switch (level) {
    case Level::kAmx:
      return tiles_bf16_amx();
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
