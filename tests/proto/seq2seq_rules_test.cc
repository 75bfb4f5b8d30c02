// The rules of jobs that learn to write a text for a text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/job.pb.h"
#include "proto/json/job_rules.h"
#include "proto/json/yaml.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

std::string job(const std::string& data = "", const std::string& training = "",
                const std::string& rest = "") {
  return "name: small\nkind: pretrain\nmodel: {family: t5, config: {}}\ntokenizer: {type: byte}\n"
         "tasks: [{type: seq2seq, data: {train: a" +
         (data.empty() ? ", format: jsonl" : data) + "}}]\ntraining: {steps: 5" + training + "}\n" +
         rest;
}

Status finish(const std::string& yaml, proto::JobSpec* spec) {
  LineMap lines;
  WEFT_RETURN_IF_ERROR(read_yaml(yaml, *spec, &lines));
  return finish_job(*spec, &lines);
}

TEST(Seq2SeqRules, WhatIsLeftOutFollows) {
  proto::JobSpec spec;
  ASSERT_EQ(finish(job(), &spec).to_string(), "ok");
  EXPECT_EQ(spec.tasks(0).data().text(), "text");
  EXPECT_EQ(spec.tasks(0).data().target(), "target");
  EXPECT_EQ(spec.training().target_length(), spec.training().sequence_length());
  EXPECT_EQ(spec.resources().device(), proto::COMPUTE_DEVICE_AUTO) << "either";
  EXPECT_TRUE(writes_targets(spec));
  EXPECT_TRUE(models_language(spec.tasks(0)));
  EXPECT_FALSE(classifies(spec.tasks(0)));
  ASSERT_EQ(finish_job(spec).to_string(), "ok") << "once more";
  proto::JobSpec said;
  ASSERT_EQ(finish(job(", format: jsonl, text: article, target: summary",
                       ", sequence_length: 100000, target_length: 7"),
                   &said)
                .to_string(),
            "ok")
      << "rows of t5 have no longest one";
  EXPECT_EQ(said.tasks(0).data().target(), "summary");
  EXPECT_EQ(said.training().target_length(), 7);
}

// Blocks are whole rows, whatever their length and that of their targets.
TEST(Seq2SeqRules, TopologyTakesWholeRows) {
  proto::JobSpec spec;
  EXPECT_EQ(finish(job("",
                       ", reproducible: topology, batch_size: 16, micro_batch_size: 8, "
                       "sequence_length: 13, target_length: 7"),
                   &spec)
                .to_string(),
            "ok");
}

TEST(Seq2SeqRules, WhatDoesNotGoWithItIsRefused) {
  const std::string rows = ", format: jsonl";
  const std::string other =
      "name: small\nkind: fine_tune\nmodel: {from: ckpt-1}\ntasks: [{type: causal_lm, data: "
      "{train: a";
  const std::pair<std::string, std::string> wrong[] = {
      {job(", format: text"), "tasks[0].data.format must be jsonl for seq2seq"},
      {job(rows + ", target: text"), "tasks[0].data.target must differ from data.text"},
      {job(rows + ", target: ''"), "tasks[0].data.target must not be empty"},
      {job(rows + ", text_pair: b"), "tasks[0].data.text_pair is only for"},
      {job(rows, ", target_length: 0"), "training.target_length must be"},
      {job(rows, ", reproducible: topology, batch_size: 4"),
       "training.batch_size must give rows at once, training.micro_batch_size x parallel.data, now "
       "4, that are a multiple of training.reproducible_blocks = 8 for a seq2seq with "
       "training.reproducible: topology, as its rows are as long as the longest of the batch"},
      {job(rows, ", target_length: 3", "parallel: {sequence: 4}\n"),
       "parallel.sequence must be at most training.target_length = 3"},
      {"name: small\nkind: fine_tune\nmodel: {from: ckpt-1}\nadapter: {type: lora, rank: "
       "4}\ntasks: [{type: "
       "seq2seq, data: {train: a, format: jsonl}}]\ntraining: {steps: 5}\n",
       "adapter must be left out with seq2seq"},
      {other + ", target: b}}]\ntraining: {steps: 5}\n",
       "tasks[0].data.target is only for seq2seq"},
      {other + "}}]\ntraining: {steps: 5, target_length: 8}\n",
       "training.target_length is only for seq2seq"},
      {job(rows, "", "parallel: {tensor: 40000}\n"),
       "parallel.tensor must be at most the model's vocab_size = 32128"},
  };
  for (const auto& [yaml, message] : wrong) {
    proto::JobSpec spec;
    EXPECT_THAT(finish(yaml, &spec).to_string(), HasSubstr(message)) << yaml;
  }
}

}  // namespace
}  // namespace weft
