// Texts that a command gets: as options, or as rows of a file or of standard input.
// Thread safety: one thread. Ownership: what it gives holds all that it needs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "proto/base/status.h"
#include "worker/data/dataset.h"

namespace weft::cli {

struct GivenTexts {
  std::vector<std::string> texts, pairs;  // --text and --text-pair, as many of these or none
  std::string option = "--text";          // what gave a text
  std::string file;                       // --file, "-" for standard input; empty: `texts`
};

// `source.words`: texts are cut at white space.
Result<Documents> find_texts(const GivenTexts& given, const SourceOptions& source);

// Reads all of it, so that a bad row is told before any answer; whether bytes have to be UTF-8 the
// tokenizer will say. Gives the number of texts. Errors: there is none; an empty one, unless they
// may be so.
Result<int64_t> check_texts(const Documents& texts, const DatasetOptions& how,
                            const std::string& file, bool may_be_empty);

}  // namespace weft::cli
