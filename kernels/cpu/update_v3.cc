#include "kernels/cpu/update_levels.h"

namespace weft::cpu {
namespace {
#include "kernels/cpu/update_body.h"
}  // namespace

extern const UpdateKernels update_v3 = kTable;

}  // namespace weft::cpu
