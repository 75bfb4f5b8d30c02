// The table of tiles_amx.cc with the instructions of tests/testing/amx_on_cpu.h.
#pragma once

#include "kernels/cpu/tiles.h"

namespace weft::testing {

// For processors with AVX512_BF16.
const cpu::TileKernels<bfloat16>& tiles_amx_on_cpu();

}  // namespace weft::testing
