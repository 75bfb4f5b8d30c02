// A model's images, as its preprocessor has to make them.
//
// Thread safety: a pure function.
#pragma once

#include "worker/data/images/preprocessor.h"
#include "worker/models/model.h"

namespace weft {

inline ImageLayout layout_of(const ModelConfig::ImageShape& image) {
  return {image.size, image.patch, image.channels};
}

}  // namespace weft
