#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>  // jpeglib.h needs it

#include <jerror.h>
#include <jpeglib.h>

#include "worker/data/images/formats.h"

namespace weft::images {
namespace {

constexpr int kScansMax = 500;  // a progressive file of more is made to take long

// libjpeg's way out of what it cannot go on with is longjmp() from the error's function: nothing
// that has to be destroyed may be made in a step.
class JpegFile {
 public:
  explicit JpegFile(std::string_view bytes) : bytes_(bytes) {
    file_.err = jpeg_std_error(&errors_);
    errors_.error_exit = on_error;
    errors_.emit_message = on_message;
    file_.client_data = this;
    progress_.progress_monitor = on_progress;
  }
  ~JpegFile() { jpeg_destroy_decompress(&file_); }
  JpegFile(const JpegFile&) = delete;
  JpegFile& operator=(const JpegFile&) = delete;

  Status read_header(Image& image) {
    WEFT_RETURN_IF_ERROR(step([this] {
      jpeg_create_decompress(&file_);
      file_.progress = &progress_;
      jpeg_mem_src(&file_, reinterpret_cast<const unsigned char*>(bytes_.data()), bytes_.size());
      jpeg_read_header(&file_, TRUE);
    }));
    image.width = file_.image_width;
    image.height = file_.image_height;
    image.channels = file_.num_components;
    if (image.channels == 1 || image.channels == 3 || image.channels == 4) return {};
    return Status::invalid("components", std::to_string(image.channels),
                           "must be 1, 3 or 4: gray, color or CMYK");
  }

  Status read_pixels(Image& image) {
    file_.out_color_space = image.channels == 1   ? JCS_GRAYSCALE
                            : image.channels == 3 ? JCS_RGB
                                                  : JCS_CMYK;
    image.pixels.resize(static_cast<size_t>(image.width * image.height * image.channels));
    uint8_t* const pixels = image.pixels.data();
    const int64_t row_bytes = image.width * image.channels;
    WEFT_RETURN_IF_ERROR(step([&] {
      jpeg_start_decompress(&file_);
      while (file_.output_scanline < file_.output_height) {
        JSAMPROW row = pixels + int64_t{file_.output_scanline} * row_bytes;
        jpeg_read_scanlines(&file_, &row, 1);
      }
    }));
    if (image.channels != 4) return {};
    std::ranges::transform(image.pixels, image.pixels.begin(),
                           [](uint8_t ink) { return static_cast<uint8_t>(255 - ink); });
    return {};
  }

 private:
  template <typename Do>
  Status step(const Do& act) {
    if (setjmp(out_) != 0) return broken("JPEG", message_.data());
    act();
    return {};
  }

  static JpegFile& of(j_common_ptr file) { return *static_cast<JpegFile*>(file->client_data); }
  static void on_error(j_common_ptr file) {
    file->err->format_message(file, of(file).message_.data());
    std::longjmp(of(file).out_, 1);
  }
  // What libjpeg goes on after is passed over, but for the end of the file: it would be gray.
  static void on_message(j_common_ptr file, int /*level*/) {
    if (file->err->msg_code == JWRN_JPEG_EOF) on_error(file);
  }
  static void on_progress(j_common_ptr file) {
    if (reinterpret_cast<j_decompress_ptr>(file)->input_scan_number <= kScansMax) return;
    constexpr std::string_view kRule = "more than 500 scans";
    std::ranges::copy(kRule, of(file).message_.begin());
    std::longjmp(of(file).out_, 1);
  }

  const std::string_view bytes_;
  jpeg_decompress_struct file_{};
  jpeg_error_mgr errors_{};
  jpeg_progress_mgr progress_{};
  std::jmp_buf out_{};
  std::array<char, JMSG_LENGTH_MAX> message_{};
};

}  // namespace

Result<Image> read_jpeg(std::string_view bytes, bool header_only) {
  JpegFile file(bytes);
  Image image;
  WEFT_RETURN_IF_ERROR(file.read_header(image));
  WEFT_RETURN_IF_ERROR(check_size(image.width, image.height));
  if (!header_only) WEFT_RETURN_IF_ERROR(file.read_pixels(image));
  return image;
}

}  // namespace weft::images
