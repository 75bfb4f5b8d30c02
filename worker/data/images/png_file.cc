#include <png.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstring>

#include "worker/data/images/formats.h"

namespace weft::images {
namespace {

// libpng leaves by longjmp() what it cannot go on with: nothing that has to be destroyed may be
// made in a step.
class PngFile {
 public:
  explicit PngFile(std::string_view bytes) : left_(bytes) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
  }
  ~PngFile() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngFile(const PngFile&) = delete;
  PngFile& operator=(const PngFile&) = delete;

  Status read_header() {
    if (info_ == nullptr) return Status(Code::kResourceExhausted, "no memory for a PNG file");
    return step([this] {
      png_set_read_fn(png_, this, on_read);
      png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // check_size has its own
      png_read_info(png_, info_);
    });
  }

  int64_t width() const { return png_get_image_width(png_, info_); }
  int64_t height() const { return png_get_image_height(png_, info_); }

  Status read_pixels(Image& image) {
    const int color = png_get_color_type(png_, info_);
    const bool colored = (color & PNG_COLOR_MASK_COLOR) != 0;
    const bool wide_gray = color == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(png_, info_) == 16;
    WEFT_RETURN_IF_ERROR(step([&] {
      if (color == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png_);
      if (color == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(png_);
      if (!wide_gray) png_set_strip_16(png_);
      png_set_strip_alpha(png_);
      png_set_interlace_handling(png_);
      png_read_update_info(png_, info_);
    }));
    image.channels = colored ? 3 : 1;
    const int64_t row_bytes = image.width * image.channels * (wide_gray ? 2 : 1);
    if (static_cast<int64_t>(png_get_rowbytes(png_, info_)) != row_bytes) {
      return broken("PNG", "rows of an unknown layout");
    }
    image.pixels.resize(static_cast<size_t>(image.height * row_bytes));
    std::vector<png_bytep> rows;
    for (int64_t y = 0; y < image.height; ++y) rows.push_back(image.pixels.data() + y * row_bytes);
    WEFT_RETURN_IF_ERROR(step([&] { png_read_image(png_, rows.data()); }));
    if (wide_gray) narrow(image.pixels);
    return {};
  }

 private:
  template <typename Do>
  Status step(const Do& act) {
    if (setjmp(png_jmpbuf(png_)) != 0) return broken("PNG", message_.data());
    act();
    return {};
  }

  // Of 16 bits, the upper ones first.
  static void narrow(std::vector<uint8_t>& pixels) {
    const size_t count = pixels.size() / 2;
    for (size_t i = 0; i < count; ++i) {
      pixels[i] = pixels[2 * i] == 0 ? pixels[2 * i + 1] : uint8_t{255};
    }
    pixels.resize(count);
  }

  static void on_error(png_structp png, png_const_charp message) {
    auto& file = *static_cast<PngFile*>(png_get_error_ptr(png));
    std::strncpy(file.message_.data(), message, file.message_.size() - 1);
    png_longjmp(png, 1);
  }
  static void on_warning(png_structp /*png*/, png_const_charp /*message*/) {}
  static void on_read(png_structp png, png_bytep out, size_t count) {
    auto& left = static_cast<PngFile*>(png_get_io_ptr(png))->left_;
    if (left.size() < count) png_error(png, "the file ends before the image does");
    std::memcpy(out, left.data(), count);
    left.remove_prefix(count);
  }

  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  std::string_view left_;
  std::array<char, 128> message_{};
};

}  // namespace

Result<Image> read_png(std::string_view bytes, bool header_only) {
  PngFile file(bytes);
  WEFT_RETURN_IF_ERROR(file.read_header());
  Image image;
  image.width = file.width();
  image.height = file.height();
  WEFT_RETURN_IF_ERROR(check_size(image.width, image.height));
  if (!header_only) WEFT_RETURN_IF_ERROR(file.read_pixels(image));
  return image;
}

}  // namespace weft::images
