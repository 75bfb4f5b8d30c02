// Tells the classes of images.
// Thread safety: one thread. Ownership: none kept.
#pragma once

#include <string>
#include <vector>

#include "coordinator/cli/commands.h"
#include "worker/serve/evaluate.h"

namespace weft::cli {

// The files that --image names, and those in folders that it names, in this order. Errors name the
// file: there is none, no PNG or JPEG file, an image's size.
Result<std::vector<SourceFile>> find_images(const std::vector<std::string>& given);

// Prints the class of each image, `at_once` of which are computed together.
Status classify_images(const Context& context, Rank& rank, LoadedModel& model,
                       const std::vector<SourceFile>& files, size_t at_once);

}  // namespace weft::cli
