// The rules of data that is recordings.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/job.pb.h"
#include "proto/json/job_rules.h"
#include "proto/json/yaml.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

std::string job(const std::string& data, const std::string& type = "speech_recognition") {
  return "name: small\nkind: fine_tune\nmodel: {from: ckpt-1}\ntasks: [{type: " + type +
         ", data: {train: a" + data + "}}]\ntraining: {steps: 5}\n";
}

Status finish(const std::string& yaml, proto::JobSpec* spec) {
  LineMap lines;
  WEFT_RETURN_IF_ERROR(read_yaml(yaml, *spec, &lines));
  return finish_job(*spec, &lines);
}

TEST(RecordingRules, TheirTextHasAKeyOfItsOwn) {
  proto::JobSpec spec;
  ASSERT_EQ(finish(job(", format: audio"), &spec).to_string(), "ok");
  EXPECT_EQ(spec.tasks(0).data().target(), "transcription");
  EXPECT_FALSE(spec.tasks(0).data().has_text());
  EXPECT_FALSE(spec.tasks(0).data().has_label());
  ASSERT_EQ(finish_job(spec).to_string(), "ok") << "once more";
  proto::JobSpec named;
  ASSERT_EQ(finish(job(", format: audio, target: sentence"), &named).to_string(), "ok");
  EXPECT_EQ(named.tasks(0).data().target(), "sentence");
}

TEST(RecordingRules, WhatDoesNotGoWithThemIsRefused) {
  const std::string audio = ", format: audio";
  const std::pair<std::string, std::string> wrong[] = {
      {job(""), "tasks[0].data.format must be audio for speech_recognition"},
      {job(", format: jsonl"), "tasks[0].data.format must be audio for speech_recognition"},
      {job(", format: images"), "tasks[0].data.format is only for image_classification"},
      {job(audio, "causal_lm"), "tasks[0].data.format is only for speech_recognition"},
      {job(audio, "seq2seq"), "tasks[0].data.format is only for speech_recognition"},
      {job(audio + ", text: words"), "tasks[0].data.text is not for speech_recognition"},
      {job(audio + ", label: words"), "tasks[0].data.label is not for speech_recognition"},
      {job(audio + ", text_pair: words"), "tasks[0].data.text_pair is not for speech_recognition"},
      {job(audio + ", target: file_name"), "tasks[0].data.target must be another key"},
      {job(audio + ", target: ''"), "tasks[0].data.target must not be empty"},
      {job(audio + ", augment: true"), "tasks[0].data.augment is only for image_classification"},
      {job(audio + ", stride: 4"), "tasks[0].data.stride is only for question_answering"},
  };
  for (const auto& [text, rule] : wrong) {
    proto::JobSpec spec;
    EXPECT_THAT(finish(text, &spec).to_string(), HasSubstr(rule)) << text;
  }
}

}  // namespace
}  // namespace weft
