// The tables of tiles.h, one an instruction set.
#pragma once

#include "kernels/cpu/tiles.h"

namespace weft::cpu {
extern const TileKernels<float> tiles_f32_v2, tiles_f32_v3, tiles_f32_v4;
extern const TileKernels<double> tiles_f64_v2, tiles_f64_v3, tiles_f64_v4;
extern const TileKernels<bfloat16> tiles_bf16_v2, tiles_bf16_v3, tiles_bf16_v4;
extern const TileKernels<bfloat16> tiles_bf16_avx512bf16;
// Made when it is asked for: what fills a table before main() runs on every processor.
const TileKernels<bfloat16>& tiles_bf16_amx();
}  // namespace weft::cpu
