// The families that find_family knows, each made once. Private to worker/models.
// Thread safety: pure functions. Ownership: families live as long as the program.
#pragma once

#include "worker/models/model.h"

namespace weft {

const ModelFamily& gpt2_family();

}  // namespace weft
