// The random part of a training image that a model sees, as torchvision's RandomResizedCrop and
// RandomHorizontalFlip draw it (Szegedy et al. 2014, section 6): 8 to 100 % of its area, three
// quarters to four thirds as wide as high, half of the time turned over.
//
// Thread safety: a pure function. Ownership: values.
// Invariant: it follows from key, epoch and sample alone, so it is the same on every mesh and in a
// training that is resumed.
#pragma once

#include "kernels/ops/random.h"
#include "worker/data/images/preprocessor.h"
#include "worker/data/masking.h"

namespace weft {

// Of an image of this size.
Augmentation draw_augmentation(RandomKey key, Visit visit, int64_t width, int64_t height);

}  // namespace weft
