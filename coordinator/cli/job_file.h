// Job files: read, changed with --set, checked, and their local paths turned into uploaded objects.
// Thread safety: one thread. Ownership: values.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "proto/base/status.h"
#include "proto/job.pb.h"
#include "proto/json/value.h"

namespace weft::cli {

struct JobFile {
  proto::JobSpec spec;  // as written, --set applied
  LineMap lines;
  std::string folder;  // that its relative paths start from
};

// `path` "-": standard input, whose paths start from the working directory. Errors carry the line.
// parse_job_file: the same of a text; `name` stands in front of errors.
Result<JobFile> parse_job_file(const std::string& text, const std::string& name,
                               const std::string& folder, const std::vector<std::string>& sets);
Result<JobFile> read_job_file(const std::string& path, const std::vector<std::string>& sets);

// The whole job with its defaults, as the coordinator would store it, or what is wrong with it. A
// model and a tokenizer at local paths are held against it (worker/admission/check_model.h).
Result<proto::JobSpec> check_job(const JobFile& file);

enum class InputKind { kModelFolder, kTokenizerFile, kData };

// A value of model.from, tokenizer.from, data.train or data.validation that is a local path.
struct LocalInput {
  std::string field;  // "tasks[0].data.train"
  InputKind kind = InputKind::kData;
  std::string path;  // absolute
};

// The local inputs of the job, each of which must exist; ids (obj-..., ckpt-...) are left alone.
Result<std::vector<LocalInput>> local_inputs(const JobFile& file);

// Puts `id_of(input)` in the place of every local path.
Status replace_inputs(JobFile& file,
                      const std::function<Result<std::string>(const LocalInput&)>& id_of);

}  // namespace weft::cli
