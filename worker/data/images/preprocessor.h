// From an image to what a vision transformer reads, as transformers' ViTImageProcessor computes it
// with PIL: resized to the model's size, scaled, less the mean and through the deviation of its
// channel. Settings are those of a preprocessor_config.json.
//
// Thread safety: const calls from any thread. Ownership: values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "worker/data/images/resample.h"
#include "worker/data/preprocessor_file.h"

namespace weft {

// What a model's configuration says of its images: square ones, cut into square patches.
struct ImageLayout {
  int64_t size = 0, patch = 0, channels = 0;
  int64_t patches() const { return (size / patch) * (size / patch); }
  int64_t patch_values() const { return channels * patch * patch; }
};

// What becomes of a training image before all else (worker/data/augmentation.h).
struct Augmentation {
  Box box;
  bool mirrored = false;
};

class ImagePreprocessor {
 public:
  // Its key in a processor_config.json.
  static constexpr std::string_view kPart = "image_processor";

  // transformers' defaults.
  explicit ImagePreprocessor(const ImageLayout& layout);
  // The text of a preprocessor_config.json. Each key is honoured or refused by name; an absent one
  // has its default, an absent size the model's.
  static Result<ImagePreprocessor> parse(std::string_view json, const ImageLayout& layout);
  static Result<ImagePreprocessor> parse(const JsonValue& settings, const ImageLayout& layout);
  // That of a model's folder; the defaults where it has none. Errors name the file.
  static Result<ImagePreprocessor> read(const std::string& folder, const ImageLayout& layout);
  // A preprocessor_config.json that transformers' AutoImageProcessor loads, of the same settings.
  std::string json() const;
  const ImageLayout& layout() const { return layout_; }

  // The file's image, of layout().channels. Writes patches() x patch_values() numbers: patches from
  // left to right and down, each channel by channel, row by row. Error: without do_resize, an image
  // of another size than the model's, which an augmented one is brought to all the same.
  Status write_patches(Image image, const std::optional<Augmentation>& augmentation,
                       float* patches) const;

 private:
  ImageLayout layout_;
  bool do_resize_ = true, do_rescale_ = true, do_normalize_ = true;
  Resampling resample_ = Resampling::kBilinear;
  double rescale_factor_ = 1.0 / 255;
  std::vector<double> mean_, deviation_;  // of each channel
};

}  // namespace weft
