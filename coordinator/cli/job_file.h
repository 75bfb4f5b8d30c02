// Job files: read, changed with --set, checked, and their local paths turned into uploaded objects.
// Thread safety: one thread. Ownership: values.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "coordinator/cli/local_input.h"
#include "proto/base/status.h"
#include "proto/job.pb.h"
#include "proto/json/value.h"
#include "worker/admission/check_model.h"

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
// `model`, where it is not null, becomes what is known of the model (check_model.h).
Result<proto::JobSpec> check_job(const JobFile& file, AdmittedModel* model = nullptr);

// Whether a value of model.from, data.train and the like is an id of the service, not a path.
bool is_id(const std::string& value);

// The data at local paths held against the tasks of `spec`, which check_job gave: reads all of it
// once (worker/data/check.h). Held-out data may have classes of a model's folder that the training
// data lacks; those of an id are not known here, which leaves them to the ranks. Errors name the
// field, the user's own file, line, key and rule.
Status check_data(const JobFile& file, const proto::JobSpec& spec);

// The local inputs of the job, each of which must exist; ids (obj-..., ckpt-...) are left alone.
Result<std::vector<LocalInput>> local_inputs(const JobFile& file);

// Puts `id_of(input)` in the place of every local path.
Status replace_inputs(JobFile& file,
                      const std::function<Result<std::string>(const LocalInput&)>& id_of);

}  // namespace weft::cli
