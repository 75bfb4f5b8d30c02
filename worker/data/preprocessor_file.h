// The settings that a model of images or recordings has beside its weights, in the files where
// transformers looks for them.
//
// Thread safety: free functions. Ownership: values.
#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "proto/base/status.h"
#include "proto/json/parse.h"
#include "proto/json/value.h"

namespace weft {

inline constexpr std::string_view kPreprocessorFile = "preprocessor_config.json";
// Of a processor of several parts, each under its key (Preprocessor::kPart). What transformers 5
// saves of such a one has no other file.
inline constexpr std::string_view kProcessorFile = "processor_config.json";

// A file's text by its name; nothing: the model has no such file.
using FileText = std::function<Result<std::optional<std::string>>(std::string_view)>;

// As in transformers a processor's part goes before a file of its own. Nothing: the model has
// neither. `file`: where they are from, or the error is.
template <typename Preprocessor, typename Layout>
Result<std::optional<Preprocessor>> find_settings(const FileText& text_of, const Layout& layout,
                                                  std::string_view& file) {
  file = kProcessorFile;
  WEFT_ASSIGN_OR_RETURN(const std::optional<std::string> parts, text_of(file));
  if (parts) {
    WEFT_ASSIGN_OR_RETURN(const JsonValue given, parse_json(*parts));
    if (const JsonValue* own = given.find(Preprocessor::kPart); own != nullptr) {
      WEFT_ASSIGN_OR_RETURN(Preprocessor read, Preprocessor::parse(*own, layout));
      return std::optional<Preprocessor>(std::move(read));
    }
  }
  file = kPreprocessorFile;
  WEFT_ASSIGN_OR_RETURN(const std::optional<std::string> alone, text_of(file));
  if (!alone) return std::optional<Preprocessor>();
  WEFT_ASSIGN_OR_RETURN(Preprocessor read, Preprocessor::parse(*alone, layout));
  return std::optional<Preprocessor>(std::move(read));
}

// Those of a model's folder; the defaults where it has none. Errors name the file.
template <typename Preprocessor, typename Layout>
Result<Preprocessor> read_preprocessor_file(const std::string& folder, const Layout& layout) {
  const auto path_of = [&](std::string_view name) { return std::filesystem::path(folder) / name; };
  const FileText text_of = [&](std::string_view name) -> Result<std::optional<std::string>> {
    std::error_code error;
    if (!std::filesystem::exists(path_of(name), error)) return std::optional<std::string>();
    std::ifstream in(path_of(name), std::ios::binary);
    std::optional<std::string> text(std::in_place, std::istreambuf_iterator<char>(in),
                                    std::istreambuf_iterator<char>());
    if (!in) return fail(Code::kUnavailable, "cannot be read");
    return text;
  };
  std::string_view file;
  auto found = find_settings<Preprocessor>(text_of, layout, file);
  if (!found) return fail(found.error().with_prefix(path_of(file).string()));
  if (*found) return std::move(**found);
  return Preprocessor::parse("{}", layout);
}

}  // namespace weft
