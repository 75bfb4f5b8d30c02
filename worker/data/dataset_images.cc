// Images as the samples of a data set.
#include <utility>

#include "kernels/tensor/thread_pool.h"
#include "proto/base/check.h"
#include "worker/data/augmentation.h"
#include "worker/data/dataset.h"
#include "worker/data/labels.h"
#include "worker/data/mapped_file.h"

namespace weft {

Result<std::shared_ptr<const Dataset>> Dataset::load_images(const std::vector<SourceFile>& files,
                                                            const DatasetOptions& options) {
  WEFT_CHECK(is_images(options.kind) && options.preprocessor, "no images, or no preprocessor");
  std::shared_ptr<Dataset> set(new Dataset(options));
  Labels labels(options.source.label_key, options.labels, options.label_names,
                options.first_labels);
  const auto visit = [&](const Document& document) { return set->add_labels(document, labels); };
  WEFT_RETURN_IF_ERROR(for_each_document(files, options.source, visit));
  set->files_ = files;
  set->samples_ = std::ssize(files);
  if (set->samples_ == 0) return fail(Code::kInvalidArgument, "the data is empty: it has no image");
  set->name_labels(labels);
  WEFT_RETURN_IF_ERROR(set->check_count());
  return std::shared_ptr<const Dataset>(std::move(set));
}

Status Dataset::read_image(Visit visit, std::optional<RandomKey> augment_key,
                           float* patches) const {
  const SourceFile& file = files_[static_cast<size_t>(visit.sample)];
  const Result<data::MappedFile> mapped = data::MappedFile::open(file.path);
  if (!mapped) return mapped.error().with_prefix(file.name);
  Result<Image> image = decode_image(mapped->bytes(), options_.preprocessor->layout().channels);
  if (!image) return image.error().with_prefix(file.name);
  std::optional<Augmentation> augmentation;
  if (augment_key) {
    augmentation = draw_augmentation(*augment_key, visit, image->width, image->height);
  }
  return options_.preprocessor->write_patches(std::move(*image), augmentation, patches)
      .with_prefix(file.name);
}

TaskRows Dataset::image_rows(std::span<const Visit> visits,
                             std::optional<RandomKey> augment_key) const {
  const ImageLayout& layout = options_.preprocessor->layout();
  const int64_t values = layout.patches() * layout.patch_values();
  TaskRows rows;
  rows.rows = std::ssize(visits);
  rows.tokens = layout.patches() + 1;
  rows.patches.resize(visits.size() * static_cast<size_t>(values));
  const auto read = [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) {
      Status status =
          read_image(visits[static_cast<size_t>(i)], augment_key, rows.patches.data() + i * values);
      if (!status.ok()) throw StatusError(std::move(status));
    }
  };
  if (options_.pool != nullptr) {
    options_.pool->parallel_for(rows.rows, /*grain=*/1, read);
  } else {
    read(0, rows.rows);
  }
  for (const Visit& visit : visits) {
    rows.labels.push_back(labels_[static_cast<size_t>(visit.sample)]);
  }
  return rows;
}

}  // namespace weft
