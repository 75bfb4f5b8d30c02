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

extern const TileKernels<bfloat16> tiles_bf16_amx = amx_table<AmxUnit>();

}  // namespace weft::cpu
