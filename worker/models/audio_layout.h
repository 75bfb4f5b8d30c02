// A model's recordings, as its preprocessor has to make them.
//
// Thread safety: a pure function.
#pragma once

#include "worker/data/audio/preprocessor.h"
#include "worker/models/model.h"

namespace weft {

inline AudioLayout layout_of(const ModelConfig::AudioShape& audio) {
  return {audio.mel_bins, audio.frames()};
}

}  // namespace weft
