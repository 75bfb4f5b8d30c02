// The lines of JSONL files. Private to source.h's readers.
//
// Thread safety: free functions. Ownership: values.
#pragma once

#include <nlohmann/json.hpp>

#include "proto/json/parse.h"
#include "worker/data/source.h"

namespace weft {

ParseLimits line_limits(int64_t bytes_max);

// Hands over each line that is not blank, with a document that has its place.
Status for_each_line(std::string_view bytes, const std::string& name,
                     const std::function<Status(std::string_view, Document)>& visit);

// The object that a line is. example: of such an object, for the error.
Result<nlohmann::json> read_row(std::string_view line, int64_t bytes_max, const Document& at,
                                const std::string& example);

// A value as an error shows it.
std::string shown_json(const nlohmann::json& value);

// The error of a row without a key.
Status lacks(const Document& at, const std::string& key, const nlohmann::json& row);

// The documents of a folder of recordings (source_recordings.cc).
Status for_each_recording(const std::vector<SourceFile>& files, const SourceOptions& options,
                          const std::function<Status(const Document&)>& visit);

}  // namespace weft
