#include "coordinator/cli/texts.h"

#include <filesystem>
#include <iostream>
#include <iterator>
#include <memory>
#include <sstream>

#include "coordinator/cli/local_input.h"
#include "worker/data/check.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

// What stands between white space.
std::vector<std::string> words_of(const std::string& text) {
  std::istringstream in(text);
  return {std::istream_iterator<std::string>(in), {}};
}

Documents given_texts(const GivenTexts& given, bool words) {
  return [given, words](const std::function<Status(const Document&)>& visit) -> Status {
    for (size_t i = 0; i < given.texts.size(); ++i) {
      Document document;
      if (words) {
        document.words = words_of(given.texts[i]);
      } else {
        document.text = given.texts[i];
      }
      if (!given.pairs.empty()) document.pair = given.pairs[i];
      document.file = given.option;
      WEFT_RETURN_IF_ERROR(visit(document));
    }
    return {};
  };
}

// Read at once, as rows are visited twice.
Documents standard_input(const SourceOptions& source) {
  const auto rows = std::make_shared<const std::string>(std::istreambuf_iterator<char>(std::cin),
                                                        std::istreambuf_iterator<char>());
  return [rows, source](const std::function<Status(const Document&)>& visit) {
    return for_each_row(*rows, "standard input", source, visit);
  };
}

}  // namespace

Result<Documents> find_texts(const GivenTexts& given, const SourceOptions& source) {
  if (given.file.empty()) return given_texts(given, source.words);
  if (given.file == "-") return standard_input(source);
  std::error_code error;
  if (!fs::exists(given.file, error)) {
    return fail(Status::invalid("--file", given.file, "must be a file or folder here"));
  }
  const std::string path = fs::absolute(given.file).lexically_normal().string();
  WEFT_ASSIGN_OR_RETURN(auto files, files_of({"--file", InputKind::kData, path}));
  for (SourceFile& file : files) file.name = file.path;
  return [files, source](const std::function<Status(const Document&)>& visit) {
    return for_each_document(files, source, visit);
  };
}

Result<int64_t> check_texts(const Documents& texts, const DatasetOptions& how,
                            const std::string& file, bool may_be_empty) {
  int64_t count = 0;
  WEFT_RETURN_IF_ERROR(texts([&](const Document& document) -> Status {
    ++count;
    if (!may_be_empty && !how.source.words && document.text.empty()) {
      return document.refuse(how.source.text_key, "\"\"", "must not be empty");
    }
    return check_document(document, how, /*utf8=*/false);
  }));
  if (count == 0) {
    return fail(Status::invalid("--file", file, "must hold at least one row"));
  }
  return count;
}

}  // namespace weft::cli
