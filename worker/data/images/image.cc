#include "worker/data/images/image.h"

#include <algorithm>
#include <utility>

#include "worker/data/images/formats.h"

namespace weft {
namespace {

using namespace std::string_view_literals;

Result<Image> read(std::string_view bytes, bool header_only) {
  if (bytes.starts_with("\x89PNG\r\n\x1a\n"sv)) return images::read_png(bytes, header_only);
  if (bytes.starts_with("\xff\xd8\xff"sv)) return images::read_jpeg(bytes, header_only);
  return fail(Status::invalid("format", bytes.empty() ? "an empty file" : "another",
                              "must be PNG or JPEG, as the file's first bytes tell it"));
}

// Products of shares of 255, rounded, as PIL has them (MULDIV255).
int share(int a, int b) {
  const int product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

void write_rgb(const uint8_t* from, int64_t channels, uint8_t* to) {
  if (channels == 1) {
    std::fill_n(to, 3, *from);
  } else if (channels == 3) {
    std::copy_n(from, 3, to);
  } else {
    const int light = 255 - from[3];
    for (int i = 0; i < 3; ++i) to[i] = static_cast<uint8_t>(light - share(from[i], light));
  }
}

// ITU-R 601-2 in 16 bits.
uint8_t luminance(const uint8_t* rgb) {
  return static_cast<uint8_t>((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16);
}

Image converted(Image image, int64_t channels) {
  if (image.channels == channels) return image;
  Image made{image.width, image.height, channels, {}};
  const int64_t count = image.width * image.height;
  made.pixels.resize(static_cast<size_t>(count * channels));
  uint8_t rgb[3];
  for (int64_t i = 0; i < count; ++i) {
    write_rgb(image.pixels.data() + i * image.channels, image.channels, rgb);
    uint8_t* const to = made.pixels.data() + i * channels;
    channels == 1 ? static_cast<void>(*to = luminance(rgb))
                  : static_cast<void>(std::copy_n(rgb, 3, to));
  }
  return made;
}

}  // namespace

namespace images {

Status broken(std::string_view format, std::string_view message) {
  return Status::invalid("image", "broken",
                         "must be a whole " + std::string(format) +
                             " file; its decoder says: " + std::string(message));
}

Status check_size(int64_t width, int64_t height) {
  const bool fits = std::min(width, height) > 0 && std::max(width, height) <= kImageSideMax;
  if (fits && width * height <= kImagePixelsMax) return {};
  return Status::invalid("image", std::to_string(width) + " x " + std::to_string(height),
                         "must be at most " + std::to_string(kImageSideMax) +
                             " pixels wide and high and have at most " +
                             std::to_string(kImagePixelsMax) + " pixels");
}

}  // namespace images

Status check_image(std::string_view bytes) {
  const Result<Image> image = read(bytes, /*header_only=*/true);
  return image ? Status() : image.error();
}

Result<Image> decode_image(std::string_view bytes, int64_t channels) {
  WEFT_ASSIGN_OR_RETURN(Image image, read(bytes, /*header_only=*/false));
  return converted(std::move(image), channels);
}

}  // namespace weft
