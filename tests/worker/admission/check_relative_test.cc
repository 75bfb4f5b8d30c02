#include "worker/admission/check_relative.h"

#include <gmock/gmock.h>

#include <functional>

#include "proto/job.pb.h"
#include "proto/json/job_rules.h"
#include "worker/admission/check_model.h"

namespace weft {
namespace {

TEST(CheckRelative, NamesWhatTermsByDistanceLack) {
  const struct {
    const char* field;
    std::function<void(proto::JobSpec&)> ask;
  } all[] = {
      {"adapter", [](proto::JobSpec& spec) { spec.mutable_adapter()->set_rank(4); }},
      {"parallel.sequence", [](proto::JobSpec& spec) { spec.mutable_parallel()->set_sequence(2); }},
      {"training.reproducible", [](proto::JobSpec& spec) {
         spec.mutable_training()->set_reproducible(proto::REPRODUCIBLE_TOPOLOGY);
         spec.mutable_training()->set_sequence_length(24);
         spec.add_tasks()->set_type(proto::TASK_TYPE_PERMUTATION_LM);
       }}};
  const ModelConfigPtr xlnet = *find_family("xlnet")->parse_config("{}");
  const ModelConfigPtr bert = *find_family("bert")->parse_config("{}");
  EXPECT_TRUE(check_relative({}, *xlnet).ok());
  proto::JobSpec in_blocks;
  in_blocks.mutable_training()->set_reproducible(proto::REPRODUCIBLE_TOPOLOGY);
  in_blocks.mutable_parallel()->set_sequence(2);
  EXPECT_TRUE(check_relative(in_blocks, *xlnet).ok());
  for (const auto& [field, ask] : all) {
    proto::JobSpec spec;
    ask(spec);
    EXPECT_EQ(check_relative(spec, *xlnet).field(), field);
    EXPECT_TRUE(check_relative(spec, *bert).ok()) << field;
  }
}

TEST(CheckRelative, AJobIsForEitherDeviceAndForItsHeads) {
  proto::JobSpec spec;
  spec.set_name("xlnet");
  spec.set_kind(proto::JOB_KIND_PRETRAIN);
  spec.mutable_model()->set_family("xlnet");
  *spec.mutable_model()->mutable_config() = json_to_struct("{}").value();
  spec.mutable_tokenizer()->set_type(proto::TOKENIZER_TYPE_BYTE);
  proto::TaskSpec& task = *spec.add_tasks();
  task.set_type(proto::TASK_TYPE_SEQUENCE_CLASSIFICATION);
  task.set_labels(3);
  task.mutable_data()->set_train("obj-1");
  task.mutable_data()->set_format(proto::DATA_FORMAT_JSONL);
  spec.mutable_training()->set_steps(10);
  ASSERT_TRUE(finish_job(spec).ok()) << finish_job(spec).to_string();
  for (const proto::ComputeDevice device :
       {proto::COMPUTE_DEVICE_UNSPECIFIED, proto::COMPUTE_DEVICE_GPU}) {
    spec.mutable_resources()->set_device(device);
    EXPECT_EQ(check_model(spec, {}).to_string(), "ok");
    EXPECT_EQ(spec.resources().device(), device);
  }
  task.set_type(proto::TASK_TYPE_QUESTION_ANSWERING);
  const Status status = check_model(spec, {});
  EXPECT_EQ(status.field(), "tasks[0].type");
  EXPECT_THAT(status.rule(), testing::HasSubstr("must be one that xlnet learns: sequence_class"));
}

}  // namespace
}  // namespace weft
