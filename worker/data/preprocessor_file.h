// The settings file that a model of images or recordings has beside its weights.
//
// Thread safety: free functions. Ownership: values.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "proto/base/status.h"

namespace weft {

inline constexpr std::string_view kPreprocessorFile = "preprocessor_config.json";

// That of a model's folder; the defaults where it has none. Errors name the file.
template <typename Preprocessor, typename Layout>
Result<Preprocessor> read_preprocessor_file(const std::string& folder, const Layout& layout) {
  const std::filesystem::path path = std::filesystem::path(folder) / kPreprocessorFile;
  std::error_code error;
  const bool given = std::filesystem::exists(path, error);
  std::string text = "{}";
  if (given) {
    std::ifstream in(path, std::ios::binary);
    text.assign(std::istreambuf_iterator<char>(in), {});
    if (!in) return fail(Code::kUnavailable, path.string() + ": cannot be read");
  }
  auto parsed = Preprocessor::parse(text, layout);
  if (!parsed && given) return fail(parsed.error().with_prefix(path.string()));
  return parsed;
}

}  // namespace weft
