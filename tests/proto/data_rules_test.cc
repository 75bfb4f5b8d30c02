// The rules of jobs whose rows are more than a text: pairs, choices, questions with their answers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/job.pb.h"
#include "proto/json/job_rules.h"
#include "proto/json/yaml.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

Status finish(const std::string& yaml, proto::JobSpec* spec) {
  LineMap lines;
  WEFT_RETURN_IF_ERROR(read_yaml(yaml, *spec, &lines));
  return finish_job(*spec, &lines);
}

std::string embedding_job(const std::string& data, const std::string& training) {
  return "name: small\nkind: fine_tune\nmodel: {from: ckpt-1}\ntasks: [{type: embedding, data: "
         "{train: a.jsonl, format: jsonl" +
         data + "}}]\ntraining: {steps: 5" + training + "}\n";
}

TEST(DataRules, PairsOfAnEmbeddingAreComputedAtOnce) {
  proto::JobSpec spec;
  ASSERT_EQ(
      finish(embedding_job("", ", batch_size: 6") + "parallel: {data: 2}\n", &spec).to_string(),
      "ok");
  EXPECT_EQ(spec.tasks(0).data().text_pair(), "text_pair");
  EXPECT_EQ(spec.training().micro_batch_size(), 3);
  proto::JobSpec again = spec;
  ASSERT_TRUE(finish_job(again).ok());
  EXPECT_EQ(again.SerializeAsString(), spec.SerializeAsString());
  const std::pair<std::string, std::string> wrong[] = {
      {embedding_job("", ", batch_size: 7"), "training.batch_size must be even"},
      {embedding_job("", ", batch_size: 2"), "training.batch_size must be even and at least 4"},
      {embedding_job("", ", batch_size: 8, micro_batch_size: 4"),
       "training.micro_batch_size must be all rows of a rank, 8,"},
      {embedding_job("", ", batch_size: 4, reproducible: topology"),
       "for an embedding with training.reproducible: topology"},
      {embedding_job(", text_pair: text", ""),
       "tasks[0].data.text_pair must differ from data.text"},
      {embedding_job(", text_pair: \"\"", ""), "tasks[0].data.text_pair must not be empty"}};
  for (const auto& [job, rule] : wrong) {
    EXPECT_THAT(finish(job, &spec).to_string(), HasSubstr(rule)) << job;
  }
}

std::string choice_job(const std::string& data, const std::string& training) {
  return "name: small\nkind: fine_tune\nmodel: {from: ckpt-1}\ntasks: [{type: multiple_choice, "
         "labels: 3, data: {train: a.jsonl, format: jsonl" +
         data + "}}]\ntraining: {steps: 5" + training + "}\n";
}

TEST(DataRules, QuestionsStayWhole) {
  proto::JobSpec spec;
  ASSERT_EQ(finish(choice_job("", ", batch_size: 12") + "parallel: {data: 2}\n", &spec).to_string(),
            "ok");
  EXPECT_EQ(spec.tasks(0).data().text_pair(), "choices");
  EXPECT_EQ(spec.training().micro_batch_size(), 6);
  EXPECT_EQ(rows_together(spec), 3);
  EXPECT_TRUE(classifies(spec.tasks(0)));
  ASSERT_EQ(finish(choice_job("", ", batch_size: 6") + "parallel: auto\n", &spec).to_string(),
            "ok");
  ASSERT_EQ(finish(choice_job("", ", batch_size: 24, reproducible: topology"), &spec).to_string(),
            "ok");
  const std::pair<std::string, std::string> wrong[] = {
      {choice_job("", ", batch_size: 8"),
       "training.batch_size must be a multiple of 3, by the labels of its multiple_choice"},
      {choice_job("", ", batch_size: 8") + "parallel: auto\n",
       "training.batch_size must be a multiple of 3, by the labels of its multiple_choice"},
      {choice_job("", ", batch_size: 9") + "parallel: {data: 2}\n",
       "training.batch_size must be a multiple of 3 x parallel.data = 2"},
      {choice_job("", ", batch_size: 12, micro_batch_size: 4"),
       "training.micro_batch_size must be a multiple of 3,"},
      {choice_job("", ", batch_size: 48, micro_batch_size: 12, reproducible: topology"),
       "training.micro_batch_size must give rows at once, training.micro_batch_size x "
       "parallel.data, now 12, that are a multiple of 24, "
       "training.reproducible_blocks x the labels of a multiple_choice"},
      {choice_job(", text_pair: label", ", batch_size: 12"),
       "tasks[0].data.text_pair must differ from data.label"}};
  for (const auto& [job, rule] : wrong) {
    EXPECT_THAT(finish(job, &spec).to_string(), HasSubstr(rule)) << job;
  }
}

std::string answer_job(const std::string& data, const std::string& training) {
  return "name: small\nkind: fine_tune\nmodel: {from: ckpt-1}\ntasks: [{type: question_answering, "
         "data: {train: a.jsonl, format: jsonl" +
         data + "}}]\ntraining: {steps: 5" + training + "}\n";
}

TEST(DataRules, AnswersHaveKeysAndAStride) {
  proto::JobSpec spec;
  ASSERT_EQ(finish(answer_job("", ", sequence_length: 100"), &spec).to_string(), "ok");
  const proto::DataSpec& data = spec.tasks(0).data();
  EXPECT_EQ(data.text(), "question");
  EXPECT_EQ(data.text_pair(), "context");
  EXPECT_EQ(data.label(), "answers");
  EXPECT_EQ(data.stride(), 33);
  EXPECT_FALSE(classifies(spec.tasks(0)));
  EXPECT_TRUE(finds_answers(spec.tasks(0)));
  proto::JobSpec again = spec;
  ASSERT_TRUE(finish_job(again).ok());
  EXPECT_EQ(again.SerializeAsString(), spec.SerializeAsString());
  ASSERT_EQ(finish(answer_job("", ", batch_size: 8, reproducible: topology"), &spec).to_string(),
            "ok");
  ASSERT_EQ(finish(answer_job(", stride: 0", ""), &spec).to_string(), "ok");
  EXPECT_EQ(spec.tasks(0).data().stride(), 0);
  std::string text = answer_job("", "");
  text.replace(text.find("jsonl}"), 5, "text");
  std::string labels = answer_job("", "");
  labels.insert(labels.find("data: {"), "labels: 2, ");
  const std::pair<std::string, std::string> wrong[] = {
      {answer_job(", stride: 64", ", sequence_length: 64"),
       "tasks[0].data.stride must be below training.sequence_length = 64"},
      {answer_job(", stride: -1", ""), "tasks[0].data.stride"},
      {choice_job(", stride: 3", ", batch_size: 12"),
       "tasks[0].data.stride is only for question_answering"},
      {text, "tasks[0].data.format must be jsonl"},
      {labels, "tasks[0].labels is only for"},
      {answer_job(", text_pair: question", ""),
       "tasks[0].data.text_pair must differ from data.text"},
      {answer_job(", label: context", ""), "tasks[0].data.text_pair must differ from data.label"},
      {answer_job(", label: question", ""), "tasks[0].data.label must differ from data.text"},
      {answer_job("", ", batch_size: 4, reproducible: topology"),
       "for a question_answering with training.reproducible: topology"}};
  for (const auto& [job, rule] : wrong) {
    EXPECT_THAT(finish(job, &spec).to_string(), HasSubstr(rule)) << job;
  }
}

}  // namespace
}  // namespace weft
