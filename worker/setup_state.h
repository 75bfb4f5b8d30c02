// What set_up does with the tensors of a checkpoint's state beyond loading them.
//
// Thread safety: the rank's compute thread. Ownership: writes into the training's masters.
#pragma once

#include "worker/setup.h"

namespace weft {

// The adapter of the checkpoint that the training starts from, if it has one, becomes part of the
// weights that it adapts, which are loaded already. Rounded once.
Status merge_adapter(const proto::CheckpointManifest& manifest, Progress& progress,
                     Training& training);

}  // namespace weft
