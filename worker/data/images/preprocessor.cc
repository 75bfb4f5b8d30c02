#include "worker/data/images/preprocessor.h"

#include <array>
#include <utility>

namespace weft {

ImagePreprocessor::ImagePreprocessor(const ImageLayout& layout)
    : layout_(layout),
      mean_(static_cast<size_t>(layout.channels), 0.5),
      deviation_(static_cast<size_t>(layout.channels), 0.5) {}

Status ImagePreprocessor::write_patches(Image image,
                                        const std::optional<Augmentation>& augmentation,
                                        float* patches) const {
  if (augmentation) image = cropped(image, augmentation->box);
  if (do_resize_ || augmentation) {
    image = resized(image, layout_.size, layout_.size, resample_);
  } else if (image.width != layout_.size || image.height != layout_.size) {
    const std::string size = std::to_string(layout_.size);
    return Status::invalid("image",
                           std::to_string(image.width) + " x " + std::to_string(image.height),
                           "must be " + size + " x " + size +
                               ", the model's size, as its preprocessor has do_resize: false");
  }
  if (augmentation && augmentation->mirrored) mirror(image);
  std::vector<std::array<float, 256>> values(static_cast<size_t>(layout_.channels));
  for (size_t channel = 0; channel < values.size(); ++channel) {
    for (size_t level = 0; level < 256; ++level) {
      auto value = static_cast<float>(level);
      if (do_rescale_) value = static_cast<float>(static_cast<double>(level) * rescale_factor_);
      if (do_normalize_) {
        value =
            (value - static_cast<float>(mean_[channel])) / static_cast<float>(deviation_[channel]);
      }
      values[channel][level] = value;
    }
  }
  const int64_t across = layout_.size / layout_.patch;
  for (int64_t patch = 0; patch < across * across; ++patch) {
    const int64_t top = patch / across * layout_.patch, left = patch % across * layout_.patch;
    for (int64_t channel = 0; channel < layout_.channels; ++channel) {
      const std::array<float, 256>& value = values[static_cast<size_t>(channel)];
      for (int64_t y = 0; y < layout_.patch; ++y) {
        const uint8_t* from = image.row(top + y) + left * layout_.channels + channel;
        for (int64_t x = 0; x < layout_.patch; ++x) {
          *patches++ = value[*from];
          from += layout_.channels;
        }
      }
    }
  }
  return {};
}

}  // namespace weft
