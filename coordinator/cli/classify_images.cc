#include "coordinator/cli/classify_images.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <span>

#include "coordinator/cli/classify_words.h"
#include "coordinator/cli/local_input.h"
#include "coordinator/cli/progress_line.h"
#include "coordinator/cli/render.h"
#include "proto/json/writer.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

std::string answer_json(const HfFolder& folder, const std::string& file,
                        const std::vector<double>& probabilities) {
  JsonWriter out;
  out.begin_object().key("file").string(file);
  write_classes(folder, probabilities, out);
  return out.end_object().take() + "\n";
}

}  // namespace

Result<std::vector<SourceFile>> find_images(const std::vector<std::string>& given) {
  std::vector<SourceFile> images;
  for (const std::string& path : given) {
    std::error_code error;
    if (!fs::exists(path, error)) {
      return fail(Status::invalid("--image", path, "must be a file or folder here"));
    }
    WEFT_ASSIGN_OR_RETURN(const auto files, files_of({"--image", InputKind::kData, path}));
    for (const SourceFile& file : files) images.push_back({file.path, file.path});
  }
  const auto ignore = [](const Document&) { return Status(); };
  SourceOptions source;
  source.format = InputFormat::kImages;
  WEFT_RETURN_IF_ERROR(for_each_document(images, source, ignore));
  return images;
}

Status classify_images(const Context& context, Rank& rank, LoadedModel& model,
                       const std::vector<SourceFile>& files, size_t at_once) {
  DatasetOptions how;
  how.kind = SampleKind::kUnlabeledImages;
  how.source.format = InputFormat::kImages;
  how.preprocessor = model.preprocessor;
  how.pool = rank.pool.get();
  const std::vector<std::string> names = shown_classes(model.folder);
  Table table({"CLASS", "PROBABILITY", "IMAGE"});
  table.align_right(1);
  ProgressLine line(context.json);
  for (size_t first = 0; first < files.size(); first += at_once) {
    const auto part = std::span(files).subspan(first, std::min(at_once, files.size() - first));
    WEFT_ASSIGN_OR_RETURN(const auto images, Dataset::load_images({part.begin(), part.end()}, how));
    WEFT_ASSIGN_OR_RETURN(const auto found, class_probabilities(rank, model, *images));
    for (size_t i = 0; i < found.size(); ++i) {
      if (context.json) {
        print(answer_json(model.folder, part[i].name, found[i]));
      } else if (files.size() == 1) {
        line.clear();
        print(class_table(model.folder, found[i]).text(context.terminal));
      } else {
        const auto best = std::ranges::max_element(found[i]);
        table.add({names[static_cast<size_t>(best - found[i].begin())],
                   fmt::format("{:.4f}", *best), part[i].name});
      }
    }
    std::fflush(stdout);
    line.show(fmt::format("classified {} of {} images", first + part.size(), files.size()));
  }
  line.clear();
  if (!context.json && files.size() > 1) print(table.text(context.terminal));
  return {};
}

}  // namespace weft::cli
