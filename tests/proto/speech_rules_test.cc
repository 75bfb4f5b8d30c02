// The rules of jobs that learn to write the text of a recording.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/job.pb.h"
#include "proto/json/job_rules.h"
#include "proto/json/yaml.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

constexpr const char* kSmall = "{max_source_positions: 20, max_target_positions: 9}";

std::string job(const std::string& training = "", const std::string& rest = "",
                const std::string& config = kSmall) {
  return "name: small\nkind: pretrain\nmodel: {family: whisper, config: " + config +
         "}\ntokenizer: {type: byte}\ntasks: [{type: speech_recognition, data: {train: a, format: "
         "audio}}]\ntraining: {steps: 5" +
         training + "}\n" + rest;
}

Status finish(const std::string& yaml, proto::JobSpec* spec) {
  LineMap lines;
  WEFT_RETURN_IF_ERROR(read_yaml(yaml, *spec, &lines));
  return finish_job(*spec, &lines);
}

TEST(SpeechRules, WhatIsLeftOutFollowsFromTheModel) {
  proto::JobSpec spec;
  ASSERT_EQ(finish(job(), &spec).to_string(), "ok");
  EXPECT_EQ(spec.tasks(0).data().target(), "transcription");
  EXPECT_EQ(spec.training().sequence_length(), 20);
  EXPECT_EQ(spec.training().target_length(), 9);
  EXPECT_EQ(spec.resources().device(), proto::COMPUTE_DEVICE_AUTO) << "either";
  EXPECT_TRUE(hears(spec));
  EXPECT_TRUE(writes_targets(spec));
  EXPECT_TRUE(models_language(spec.tasks(0)));
  ASSERT_EQ(finish_job(spec).to_string(), "ok") << "once more";
  proto::JobSpec own;
  ASSERT_EQ(finish(job("", "", "{}"), &own).to_string(), "ok");
  EXPECT_EQ(own.training().sequence_length(), 1500);
  EXPECT_EQ(own.training().target_length(), 448);
  proto::JobSpec said;
  ASSERT_EQ(finish(job(", sequence_length: 20, target_length: 7"), &said).to_string(), "ok");
  EXPECT_EQ(said.training().target_length(), 7);
}

// Nothing is known of it yet.
TEST(SpeechRules, OfAModelThatIsThereItFollowsLater) {
  proto::JobSpec spec;
  const std::string yaml =
      "name: small\nkind: fine_tune\nmodel: {from: ckpt-1}\ntasks: [{type: speech_recognition, "
      "data: {train: a, format: audio}}]\ntraining: {steps: 5}\n";
  ASSERT_EQ(finish(yaml, &spec).to_string(), "ok");
  EXPECT_FALSE(spec.training().has_sequence_length());
  EXPECT_FALSE(spec.training().has_target_length());
}

TEST(SpeechRules, WhatDoesNotGoWithItIsRefused) {
  const std::pair<std::string, std::string> wrong[] = {
      {job(", sequence_length: 21"),
       "training.sequence_length must be left out, or the model's max_source_positions = 20"},
      {job(", target_length: 10"),
       "training.target_length must be at most the model's max_target_positions = 9"},
      {job("", "parallel: {sequence: 10}\n"),
       "parallel.sequence must be at most the model's max_source_positions = 20 and "
       "max_target_positions = 9"},
      {job(", target_length: 3", "parallel: {sequence: 4}\n"),
       "parallel.sequence must be at most training.target_length = 3"},
      {job("", "", "{max_source_positions: 0}"),
       "model.config.max_source_positions must be an integer from 1"},
      {job("", "parallel: {tensor: 60000}\n"),
       "parallel.tensor must be at most the model's vocab_size = 51865"},
      {"name: small\nkind: fine_tune\nmodel: {from: ckpt-1}\nadapter: {type: lora, rank: "
       "4}\ntasks: [{type: speech_recognition, data: {train: a, format: audio}}]\ntraining: "
       "{steps: 5}\n",
       "adapter must be left out with speech_recognition"},
      {"name: small\nkind: multi_task\nmodel: {from: ckpt-1}\ntasks: [{type: speech_recognition, "
       "data: {train: a, format: audio}}, {type: seq2seq, data: {train: b, format: "
       "jsonl}}]\ntraining: {steps: 5}\n",
       "tasks[1].type must not stand beside speech_recognition"},
  };
  for (const auto& [yaml, message] : wrong) {
    proto::JobSpec spec;
    EXPECT_THAT(finish(yaml, &spec).to_string(), HasSubstr(message)) << yaml;
  }
}

}  // namespace
}  // namespace weft
