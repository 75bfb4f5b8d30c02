#include <utility>

#include "kernels/cpu/tiles_levels.h"

#define WEFT_VECTOR_BYTES 16

namespace weft::cpu {
namespace {
#include "kernels/cpu/tiles_body.h"
}  // namespace

extern const TileKernels<float> tiles_f32_v2 = table<F32, float>();
extern const TileKernels<double> tiles_f64_v2 = table<F64, double>();
extern const TileKernels<bfloat16> tiles_bf16_v2 = table<F32, bfloat16>();

}  // namespace weft::cpu
