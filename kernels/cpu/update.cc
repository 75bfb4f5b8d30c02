#include "kernels/cpu/update.h"

#include "kernels/cpu/update_levels.h"

namespace weft::cpu {

const UpdateKernels& update_at(Level level) {
  if (level >= Level::kV4) return update_v4;
  return level == Level::kV3 ? update_v3 : update_v2;
}

const UpdateKernels& update() {
  static const UpdateKernels& found = update_at(level());
  return found;
}

}  // namespace weft::cpu
