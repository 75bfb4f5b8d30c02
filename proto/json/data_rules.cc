#include "proto/json/data_rules.h"

#include <string>
#include <string_view>
#include <tuple>

#include "proto/job.pb.h"
#include "proto/json/job_rules.h"
#include "proto/json/names.h"

namespace weft {
namespace {

constexpr std::string_view kRecordingKey = "file_name";  // of metadata.jsonl

std::string format_name(const proto::DataSpec& data) {
  return enum_name(*proto::DataFormat_descriptor()->FindValueByNumber(data.format()));
}

}  // namespace

Status finish_pair(proto::TaskSpec& task, const std::string& path, const Refusal& refuse) {
  proto::DataSpec& data = *task.mutable_data();
  if (embeds(task) && !data.has_text_pair()) data.set_text_pair("text_pair");
  if (chooses(task) && !data.has_text_pair()) data.set_text_pair("choices");
  if (finds_answers(task) && !data.has_text_pair()) data.set_text_pair("context");
  if (!data.has_text_pair()) return {};
  const std::string field = path + ".data.text_pair";
  if (!embeds(task) && !chooses(task) && !finds_answers(task) &&
      task.type() != proto::TASK_TYPE_SEQUENCE_CLASSIFICATION) {
    return refuse(field, data.text_pair(),
                  "is only for sequence_classification, multiple_choice, question_answering and "
                  "embedding");
  }
  if (data.text_pair().empty()) return refuse(field, "", "must not be empty");
  if (data.format() == proto::DATA_FORMAT_TEXT) {
    return refuse(path + ".data.format", "text",
                  finds_answers(task)
                      ? "must be jsonl for question_answering"
                      : "must be jsonl with data.text_pair: plain text has no pairs");
  }
  if (data.text_pair() == data.text()) {
    return refuse(field, data.text_pair(), "must differ from data.text");
  }
  if (data.text_pair() == data.label()) {
    return refuse(field, data.text_pair(), "must differ from data.label");
  }
  return {};
}

Status finish_stride(proto::TaskSpec& task, const std::string& path, int32_t sequence_length,
                     const Refusal& refuse) {
  proto::DataSpec& data = *task.mutable_data();
  const std::string field = path + ".data.stride";
  if (!finds_answers(task)) {
    if (!data.has_stride()) return {};
    return refuse(field, data.stride(), "is only for question_answering");
  }
  if (!data.has_stride()) data.set_stride(sequence_length / kStrideShare);
  if (data.stride() < sequence_length) return {};
  return refuse(field, data.stride(),
                "must be below training.sequence_length = " + std::to_string(sequence_length) +
                    ", of which question and context are the rest");
}

Status check_images(const proto::TaskSpec& task, const std::string& path, const Refusal& refuse) {
  const proto::DataSpec& data = task.data();
  if (!sees_images(task)) {
    if (data.format() == proto::DATA_FORMAT_IMAGES) {
      return refuse(path + ".data.format", "images", "is only for image_classification");
    }
    if (!data.has_augment()) return {};
    return refuse(path + ".data.augment", data.augment() ? "true" : "false",
                  "is only for image_classification");
  }
  if (data.format() != proto::DATA_FORMAT_IMAGES) {
    return refuse(path + ".data.format", format_name(data),
                  "must be images for image_classification");
  }
  const auto no_key = [&](const char* key, bool given, const std::string& value) -> Status {
    if (!given) return {};
    return refuse(path + ".data." + key, value,
                  "is a key of jsonl: an image_classification's images lie in a folder of the name "
                  "of their class");
  };
  WEFT_RETURN_IF_ERROR(no_key("text", data.has_text(), data.text()));
  WEFT_RETURN_IF_ERROR(no_key("label", data.has_label(), data.label()));
  return no_key("text_pair", data.has_text_pair(), data.text_pair());
}

Status check_recordings(const proto::TaskSpec& task, const std::string& path,
                        const Refusal& refuse) {
  const proto::DataSpec& data = task.data();
  if (!hears(task)) {
    if (data.format() != proto::DATA_FORMAT_AUDIO) return {};
    return refuse(path + ".data.format", "audio", "is only for speech_recognition");
  }
  if (data.format() != proto::DATA_FORMAT_AUDIO) {
    return refuse(path + ".data.format", format_name(data), "must be audio for speech_recognition");
  }
  for (const auto& [key, given, value] : {std::tuple{"text", data.has_text(), data.text()},
                                          {"label", data.has_label(), data.label()},
                                          {"text_pair", data.has_text_pair(), data.text_pair()}}) {
    if (!given) continue;
    return refuse(path + ".data." + key, value,
                  "is not for speech_recognition: data.target is the key of a recording's text");
  }
  if (data.target() != kRecordingKey) return {};
  return refuse(path + ".data.target", data.target(),
                "must be another key: it has the path of a recording");
}

Status finish_keys(proto::TaskSpec& task, const std::string& path, const Refusal& refuse) {
  if (sees_images(task) || hears(task)) return {};
  constexpr const char* kUsualLabel = "label";
  const bool answers = finds_answers(task);
  proto::DataSpec& data = *task.mutable_data();
  constexpr const char* kUsualText = "text";
  if (data.format() == proto::DATA_FORMAT_TEXT) {
    // Jobs that are stored since every task had one have the usual one.
    if (data.text() == kUsualText) data.clear_text();
    if (data.has_text()) {
      return refuse(path + ".data.text", data.text(), "is only for data.format: jsonl");
    }
  } else if (!data.has_text()) {
    data.set_text(answers ? "question" : kUsualText);
  } else if (data.text().empty()) {
    return refuse(path + ".data.text", "", "must not be empty");
  }
  if (classifies(task) || answers) {
    if (!data.has_label()) data.set_label(answers ? "answers" : kUsualLabel);
    if (data.label().empty()) return refuse(path + ".data.label", "", "must not be empty");
    return {};
  }
  // Jobs that are stored since every task had one have the usual one.
  if (data.label() == kUsualLabel) data.clear_label();
  if (!data.has_label()) return {};
  return refuse(path + ".data.label", data.label(),
                "is only for sequence_classification, token_classification, multiple_choice and "
                "question_answering");
}

}  // namespace weft
