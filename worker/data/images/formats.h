// The two file formats behind image.h.
//
// Thread safety: free functions. Ownership: values.
#pragma once

#include <string_view>

#include "proto/base/status.h"
#include "worker/data/images/image.h"

namespace weft::images {

// channels: 1 gray, 3 RGB, 4 CMYK with 0 for no ink. `header_only`: without pixels.
Result<Image> read_png(std::string_view bytes, bool header_only);
Result<Image> read_jpeg(std::string_view bytes, bool header_only);

// Of a library's word on what is wrong with the file.
Status broken(std::string_view format, std::string_view message);

// Within kImagePixelsMax and kImageSideMax.
Status check_size(int64_t width, int64_t height);

}  // namespace weft::images
