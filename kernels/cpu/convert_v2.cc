#include "kernels/cpu/convert_levels.h"

namespace weft::cpu {
namespace {
#include "kernels/cpu/convert_body.h"
}  // namespace

extern const ConvertKernels convert_v2 = kTable;

}  // namespace weft::cpu
