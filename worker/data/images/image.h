// Pixels of PNG and JPEG files, as PIL gives them (Image.open(file).convert("RGB") or "L"): alpha
// and EXIF are passed over, palettes looked up, of 16 bits the upper 8 taken (of gray the value,
// 255 at most), CMYK files, which are stored inverted, converted by their black.
//
// Thread safety: free functions. Ownership: values.
// Invariant: no content of a file can make these run without bound, crash or take more memory than
// an image of kImagePixelsMax needs. Errors tell the rule; the caller knows the file.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "proto/base/status.h"

namespace weft {

inline constexpr int64_t kImagePixelsMax = int64_t{1} << 26;
inline constexpr int64_t kImageSideMax = 65535;

struct Image {
  int64_t width = 0, height = 0, channels = 0;
  std::vector<uint8_t> pixels;  // row by row, the channels of a pixel together
  const uint8_t* row(int64_t y) const { return pixels.data() + y * width * channels; }
};

// All of the header's rules: the file's format and the image's size.
Status check_image(std::string_view bytes);

// channels: 3 for RGB, 1 for gray.
Result<Image> decode_image(std::string_view bytes, int64_t channels);

}  // namespace weft
