// The rules of jobs that learn from images.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/job.pb.h"
#include "proto/json/job_rules.h"
#include "proto/json/yaml.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

std::string job(const std::string& data, const std::string& training = "",
                const std::string& rest = "") {
  return "name: small\nkind: pretrain\nmodel: {family: vit, config: {image_size: 32, patch_size: "
         "8}}\ntasks: [{type: image_classification, labels: 3, data: {train: a" +
         data + "}}]\ntraining: {steps: 5" + training + "}\n" + rest;
}

Status finish(const std::string& yaml, proto::JobSpec* spec) {
  LineMap lines;
  WEFT_RETURN_IF_ERROR(read_yaml(yaml, *spec, &lines));
  return finish_job(*spec, &lines);
}

TEST(ImageRules, TokensFollowFromTheModel) {
  proto::JobSpec spec;
  ASSERT_EQ(finish(job(", format: images, augment: true"), &spec).to_string(), "ok");
  EXPECT_EQ(spec.training().sequence_length(), 17);
  EXPECT_FALSE(spec.tasks(0).data().has_text());
  EXPECT_FALSE(spec.has_tokenizer());
  EXPECT_TRUE(classifies(spec.tasks(0)));
  EXPECT_TRUE(sees_images(spec));
  ASSERT_EQ(finish_job(spec).to_string(), "ok");
  EXPECT_EQ(spec.training().sequence_length(), 17);
  proto::JobSpec again;
  ASSERT_EQ(finish(job(", format: images", ", sequence_length: 17"), &again).to_string(), "ok");
  proto::JobSpec tuned;
  ASSERT_EQ(finish("name: small\nkind: fine_tune\nmodel: {from: ckpt-1}\ntasks: [{type: "
                   "image_classification, labels: 3, data: {train: a, format: images}}]\n"
                   "training: {steps: 5}\n",
                   &tuned)
                .to_string(),
            "ok");
  EXPECT_FALSE(tuned.training().has_sequence_length());
}

TEST(ImageRules, WhatDoesNotGoWithImagesIsRefused) {
  const std::string images = ", format: images";
  const std::pair<std::string, std::string> wrong[] = {
      {job(""), "tasks[0].data.format must be images for image_classification"},
      {job(", format: jsonl"), "tasks[0].data.format must be images"},
      {job(images + ", text: words"), "tasks[0].data.text is a key of jsonl"},
      {job(images + ", label: class"), "tasks[0].data.label is a key of jsonl"},
      {job(images + ", text_pair: b"), "tasks[0].data.text_pair is a key of jsonl"},
      {job(images, "", "tokenizer: {type: byte}\n"), "tokenizer is not for image_classification"},
      {job(images, ", sequence_length: 16"), "training.sequence_length must be left out, or 17"},
      {job(images, "", "parallel: {sequence: 18}\n"),
       "parallel.sequence must be at most the tokens of an image, 17"},
      {"name: small\nkind: pretrain\nmodel: {family: vit, config: {patch_size: 300}}\ntasks: "
       "[{type: image_classification, labels: 3, data: {train: a, format: images}}]\n"
       "training: {steps: 5}\n",
       "model.config.patch_size must be at most image_size = 224"},
      {"name: small\nkind: fine_tune\nmodel: {from: ckpt-1}\ntasks: [{type: causal_lm, data: "
       "{train: a, augment: true}}]\ntraining: {steps: 5}\n",
       "tasks[0].data.augment is only for image_classification"},
      {"name: small\nkind: fine_tune\nmodel: {from: ckpt-1}\ntasks: [{type: causal_lm, data: "
       "{train: a, format: images}}]\ntraining: {steps: 5}\n",
       "tasks[0].data.format is only for image_classification"},
      {"name: small\nkind: multi_task\nmodel: {from: ckpt-1}\ntasks: [{type: "
       "image_classification, labels: 3, data: {train: a, format: images}}, {type: causal_lm, "
       "data: {train: b}}]\ntraining: {steps: 5}\n",
       "tasks[1].type must not stand beside image_classification"}};
  for (const auto& [text, rule] : wrong) {
    proto::JobSpec spec;
    EXPECT_THAT(finish(text, &spec).to_string(), HasSubstr(rule)) << text;
  }
}

}  // namespace
}  // namespace weft
