// The table of bf16 for processors with AMX.
#include <immintrin.h>

#include <utility>

#include "kernels/cpu/amx.h"
#include "kernels/cpu/tiles_levels.h"

#define WEFT_VECTOR_BYTES 64

namespace weft::cpu {
namespace {
#include "kernels/cpu/tiles_body.h"

#include "kernels/cpu/tiles_amx_body.h"
}  // namespace

const TileKernels<bfloat16>& tiles_bf16_amx() {
  static const TileKernels<bfloat16> table = amx_table<AmxUnit>();
  return table;
}

}  // namespace weft::cpu
