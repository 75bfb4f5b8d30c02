// Cuts and resizes images, as PIL's Image.crop and Image.resize do: convolution with a filter as
// wide as the reduction, across and down, each in fixed point and rounded to 8 bits. Which of the
// two comes first goes by the shape, as in Pillow 13; before it, across always did.
//
// Thread safety: pure functions. Ownership: values.
#pragma once

#include <cstdint>

#include "worker/data/images/image.h"

namespace weft {

// By PIL's numbers.
enum class Resampling : uint8_t { kBilinear = 2, kBicubic = 3 };

struct Box {
  int64_t left = 0, top = 0, width = 0, height = 0;
  bool operator==(const Box&) const = default;
};

// The box lies in the image.
Image cropped(const Image& image, const Box& box);
Image resized(const Image& image, int64_t width, int64_t height, Resampling filter);
// From left to right turned over.
void mirror(Image& image);

}  // namespace weft
