#include "proto/json/yaml.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "google/protobuf/util/message_differencer.h"
#include "proto/job.pb.h"
#include "proto/json/rules.h"

namespace weft {
namespace {

std::string sample() {
  std::ifstream in(WEFT_SOURCE_DIR "/tests/proto/sample_job.yaml");
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(Yaml, ReadsEveryKeyOfAJobFile) {
  proto::JobSpec spec;
  LineMap lines;
  ASSERT_EQ(read_yaml(sample(), spec, &lines).to_string(), "ok");
  EXPECT_EQ(write_json(spec),
            R"({"name":"licences","kind":"multi_task","model":{"from":"","family":"gpt2",)"
            R"("config":{"layer_norm_epsilon":1e-05,"n_embd":128,"n_head":4,"n_layer":4,)"
            R"("n_positions":256,"vocab_size":257}},"tokenizer":{"type":"byte","from":""},)"
            R"("tasks":[{"name":"lm","type":"causal_lm","weight":1.0,"data":{"train":"texts/",)"
            R"("validation":"","format":"text"}},{"name":"licence",)"
            R"("type":"sequence_classification","labels":8,"data":{"train":"train.jsonl",)"
            R"("validation":"held.jsonl","format":"jsonl","text":"text","label":"label"}}],)"
            R"("training":{"steps":300,"batch_size":16,"micro_batch_size":4,)"
            R"("sequence_length":128,"precision":"fp32","seed":17,"gradient_clip":1.0,)"
            R"("evaluate_every":50,"optimizer":{"type":"adamw","learning_rate":0.0003,)"
            R"("weight_decay":0.01,"betas":[0.9,0.95]},"schedule":{"type":"cosine",)"
            R"("warmup_steps":20}},"checkpoint":{"every_steps":50,"keep_last":3},)"
            R"("parallel":{"data":1,"sequence":1,"tensor":2,"ulysses":0},)"
            R"("resources":{"slots":2,"nodes":2,"threads_per_slot":0,"time_limit_seconds":0},)"
            R"("priority":0,"labels":{}})");
  EXPECT_EQ(lines.find("tasks[1].data.train"), 7);
  EXPECT_EQ(lines.find("training.optimizer.betas[1]"), 9);
  EXPECT_EQ(lines.find("training.dropout"), 8);
  EXPECT_TRUE(check_rules(spec, &lines).ok());
}

TEST(Yaml, TheWrittenFormReadsBackTheSame) {
  proto::JobSpec spec;
  ASSERT_TRUE(read_yaml(sample(), spec).ok());
  for (int round = 0; round < 2; ++round) {
    proto::JobSpec again;
    ASSERT_EQ(read_json(write_json(spec, {2}), again).to_string(), "ok");
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(spec, again));
    ASSERT_EQ(read_yaml(write_json(spec, {2}), again).to_string(), "ok");
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(spec, again));
    ASSERT_EQ(apply_defaults(spec).to_string(), "ok");
  }
  EXPECT_EQ(spec.training().gradient_clip(), 1.0);
  EXPECT_EQ(spec.training().log_every(), 1);
  EXPECT_EQ(spec.max_restarts(), 5);
}

TEST(Yaml, AWrittenZeroIsNotReplacedByTheDefault) {
  proto::JobSpec spec;
  ASSERT_TRUE(read_yaml("training: {gradient_clip: 0}\ntasks: [{weight: 0}]", spec).ok());
  ASSERT_TRUE(apply_defaults(spec).ok());
  EXPECT_EQ(spec.training().gradient_clip(), 0);
  EXPECT_EQ(spec.training().batch_size(), 8);
  EXPECT_EQ(spec.training().optimizer().betas(1), 0.999);
  EXPECT_EQ(spec.tasks(0).weight(), 0);
  EXPECT_FALSE(spec.has_tokenizer());
  EXPECT_EQ(spec.parallel().tensor(), 1);
}

TEST(Yaml, SetPathReplacesOneField) {
  proto::JobSpec spec;
  ASSERT_TRUE(read_yaml(sample(), spec).ok());
  EXPECT_EQ(set_path(spec, "training.steps", "10").to_string(), "ok");
  EXPECT_EQ(set_path(spec, "tasks[0].weight", "2").to_string(), "ok");
  EXPECT_EQ(set_path(spec, "model.config.n_layer", "2").to_string(), "ok");
  EXPECT_EQ(set_path(spec, "name", "10").to_string(), "ok");
  EXPECT_EQ(set_path(spec, "labels.team", "x").to_string(), "ok");
  EXPECT_EQ(set_path(spec, "labels.example.org/team", "y").to_string(), "ok");
  EXPECT_EQ(spec.labels().at("example.org/team"), "y");
  EXPECT_EQ(set_path(spec, "labels.team[0]", "x").rule(), "is not a list");
  EXPECT_EQ(set_path(spec, "training.optimizer.betas", "[0.8, 0.9]").to_string(), "ok");
  EXPECT_EQ(set_path(spec, "training.optimizer.betas[1]", "0.5").to_string(), "ok");
  EXPECT_EQ(spec.training().steps(), 10);
  EXPECT_EQ(spec.tasks(0).weight(), 2);
  EXPECT_EQ(spec.model().config().fields().at("n_layer").number_value(), 2);
  EXPECT_EQ(spec.name(), "10");
  EXPECT_EQ(spec.labels().at("team"), "x");
  EXPECT_EQ(spec.training().optimizer().betas(0), 0.8);
  EXPECT_EQ(spec.training().optimizer().betas(1), 0.5);
  EXPECT_EQ(spec.training().optimizer().betas_size(), 2);
  EXPECT_EQ(set_path(spec, "training.stepz", "1").rule(),
            "is not a known key; did you mean steps?");
  EXPECT_EQ(set_path(spec, "tasks[7].weight", "1").field(), "tasks[7]");
}

}  // namespace
}  // namespace weft
