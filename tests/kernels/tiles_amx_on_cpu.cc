#include "tests/kernels/tiles_amx_on_cpu.h"

#include <immintrin.h>

#include <utility>

#include "kernels/cpu/amx.h"
#include "kernels/cpu/tiles_levels.h"
#include "tests/testing/amx_on_cpu.h"

#define WEFT_VECTOR_BYTES 64

namespace weft::cpu {
namespace {
#include "kernels/cpu/tiles_body.h"

#include "kernels/cpu/tiles_amx_body.h"
}  // namespace
}  // namespace weft::cpu

namespace weft::testing {

const cpu::TileKernels<bfloat16>& tiles_amx_on_cpu() {
  static const cpu::TileKernels<bfloat16> table = cpu::amx_table<AmxOnCpu>();
  return table;
}

}  // namespace weft::testing
