// Inputs of a job that lie on this machine: which files each is made of.
//
// Thread safety: pure but for reading folders. Ownership: values.
#pragma once

#include <string>
#include <vector>

#include "proto/base/status.h"
#include "worker/data/source.h"

namespace weft::cli {

enum class InputKind { kModelFolder, kTokenizerFile, kData };

// A value of model.from, tokenizer.from, data.train or data.validation that is a local path.
struct LocalInput {
  std::string field;  // "tasks[0].data.train"
  InputKind kind = InputKind::kData;
  std::string path;  // absolute
};

// The files that make up an input, sorted; a name is the path within the object. Of a model's
// folder only what a model is made of; hidden files are left out, links to files followed. Errors
// have the input's field and name the file: a link to nothing, to itself or to a folder; a pipe,
// device or socket; a name that no object may have (proto/json/file_path.h); no file at all.
Result<std::vector<SourceFile>> files_of(const LocalInput& input);

}  // namespace weft::cli
