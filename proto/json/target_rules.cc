#include "proto/json/target_rules.h"

#include <string>

#include "proto/job.pb.h"
#include "proto/json/job_rules.h"

namespace weft {

Status finish_target(proto::TaskSpec& task, const std::string& path, const Refusal& refuse) {
  proto::DataSpec& data = *task.mutable_data();
  const std::string field = path + ".data.target";
  if (!writes_targets(task)) {
    if (!data.has_target()) return {};
    return refuse(field, data.target(), "is only for seq2seq and speech_recognition");
  }
  if (!data.has_target()) data.set_target(hears(task) ? "transcription" : "target");
  if (data.target().empty()) return refuse(field, "", "must not be empty");
  if (data.format() == proto::DATA_FORMAT_TEXT && !hears(task)) {
    return refuse(path + ".data.format", "text",
                  "must be jsonl for seq2seq: plain text has no targets");
  }
  if (data.target() != data.text()) return {};
  return refuse(field, data.target(), "must differ from data.text");
}

Status finish_targets(proto::JobSpec& spec, const Refusal& refuse) {
  proto::TrainingSpec& training = *spec.mutable_training();
  if (!writes_targets(spec)) {
    if (!training.has_target_length()) return {};
    return refuse("training.target_length", training.target_length(),
                  "is only for seq2seq and speech_recognition");
  }
  // Of recordings it follows from the model.
  if (!training.has_target_length() && !hears(spec)) {
    training.set_target_length(training.sequence_length());
  }
  const std::string type = hears(spec) ? "speech_recognition" : "seq2seq";
  if (spec.has_adapter()) {
    return refuse("adapter", "", "must be left out with " + type + ": an encoder-decoder has none");
  }
  if (training.has_target_length() && spec.parallel().sequence() > training.target_length()) {
    return refuse(
        "parallel.sequence", spec.parallel().sequence(),
        "must be at most training.target_length = " + std::to_string(training.target_length()) +
            ", or some ranks would have no tokens of targets");
  }
  return {};
}

}  // namespace weft
