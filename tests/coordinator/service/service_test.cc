#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>

#include "tests/coordinator/service/service_fixture.h"

namespace weft {
namespace {

TEST_F(ServiceTest, SubmitsWithDefaultsAndFindsItAgain) {
  const std::string id = submit("key");
  const auto job = service_.job(id).value();
  EXPECT_EQ(job.state(), proto::JOB_STATE_QUEUED);
  EXPECT_EQ(job.steps(), 10);
  EXPECT_EQ(job.spec().resources().slots(), 1);
  EXPECT_EQ(submit("key"), id);
  EXPECT_EQ(service_.submit(spec(), "key", "another").error().code(), Code::kAlreadyExists);
  EXPECT_EQ(service_.jobs({}).value().jobs.size(), 1u);
  EXPECT_EQ(service_.events(id, 0, 10).value().items.size(), 1u);
}

TEST_F(ServiceTest, HoldsAnUploadedModelAgainstTheJob) {
  auto tune = spec();
  tune.set_kind(proto::JOB_KIND_FINE_TUNE);
  tune.mutable_model()->Clear();
  tune.mutable_model()->set_from(
      upload_folder(std::string(WEFT_SOURCE_DIR) + "/tests/fixtures/golden/gpt2-causal/hf"));
  Status status = service_.submit(tune, "", "").error();  // 128 tokens: too few for bytes
  EXPECT_EQ(status.field(), "model.config.vocab_size") << status.to_string();
  tune.clear_tokenizer();
  EXPECT_EQ(service_.submit(tune, "", "").error().field(), "tokenizer");
  tune.mutable_training()->set_sequence_length(1000);
  status = service_.validate(tune).error();
  EXPECT_EQ(status.field(), "training.sequence_length") << status.to_string();
  EXPECT_EQ(status.value(), "1000");
  tune.mutable_model()->set_from(data_);  // a text, no folder
  status = service_.validate(tune).error();
  EXPECT_EQ(status.field(), "model.from");
  EXPECT_THAT(status.rule(), testing::HasSubstr("must hold config.json"));
  EXPECT_TRUE(store_->jobs().empty());
}

TEST_F(ServiceTest, RefusesWhatIsNotUploaded) {
  for (const char* path : {"texts/", "obj-00000000000000000000000000000000", "/etc/passwd"}) {
    auto wrong = spec();
    wrong.mutable_tasks(0)->mutable_data()->set_train(path);
    const Status status = service_.submit(wrong, "", "").error();
    EXPECT_EQ(status.field(), "tasks[0].data.train") << path;
    EXPECT_THAT(status.rule(), testing::HasSubstr("upload it first"));
  }
  auto wrong = spec();
  wrong.set_kind(proto::JOB_KIND_FINE_TUNE);
  wrong.mutable_model()->clear_family();
  wrong.mutable_model()->clear_config();
  wrong.mutable_model()->set_from("ckpt-none");
  EXPECT_EQ(service_.submit(wrong, "", "").error().field(), "model.from");
}

TEST_F(ServiceTest, RefusesWhatNoSetOfNodesCouldHold) {
  auto large = spec();
  large.mutable_parallel()->set_data(3);
  EXPECT_TRUE(service_.submit(large, "", "")) << "no node has joined yet";
  join("n1", 1);
  join("n2", 1);
  EXPECT_EQ(service_.submit(large, "", "").error().field(), "parallel.data");
  join("n3", 1);
  EXPECT_TRUE(service_.submit(large, "", ""));
}

TEST_F(ServiceTest, CancelPauseResumeInEveryState) {
  const std::string id = submit();
  EXPECT_EQ(resume(id).value().state(), proto::JOB_STATE_QUEUED);
  EXPECT_EQ(service_.checkpoint_now(id).error().code(), Code::kFailedPrecondition);
  EXPECT_EQ(service_.pause(id).value().state(), proto::JOB_STATE_PAUSED);
  EXPECT_EQ(service_.pause(id).value().state(), proto::JOB_STATE_PAUSED);
  EXPECT_EQ(resume(id).value().state(), proto::JOB_STATE_QUEUED);
  set_state(id, proto::JOB_STATE_RUNNING);
  EXPECT_EQ(service_.checkpoint_now(id).value().checkpoint_requests(), 1);
  EXPECT_EQ(service_.events(id, 0, 10).value().items.back().type(), "checkpoint_requested");
  EXPECT_EQ(service_.pause(id).value().state(), proto::JOB_STATE_PAUSING);
  EXPECT_EQ(resume(id).error().code(), Code::kFailedPrecondition);
  EXPECT_EQ(service_.cancel(id).value().state(), proto::JOB_STATE_CANCELLING);
  EXPECT_EQ(service_.pause(id).error().code(), Code::kFailedPrecondition);
  EXPECT_EQ(service_.remove(id).code(), Code::kFailedPrecondition);
  set_state(id, proto::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(service_.cancel(id).error().code(), Code::kFailedPrecondition);
  EXPECT_TRUE(service_.remove(id).ok());
  EXPECT_EQ(service_.cancel(id).error().code(), Code::kNotFound);
  const std::string waiting = submit();
  EXPECT_EQ(service_.cancel(waiting).value().state(), proto::JOB_STATE_CANCELLED);
  EXPECT_EQ(service_.cancel(waiting).value().state(), proto::JOB_STATE_CANCELLED);
}

TEST_F(ServiceTest, ListsByPageAndFilter) {
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(submit());
  ASSERT_TRUE(service_.pause(ids[1]));
  JobFilter filter;
  filter.limit = 2;
  auto page = service_.jobs(filter).value();
  EXPECT_EQ(page.total, 5);
  filter.after = page.next;
  ASSERT_TRUE(service_.cancel(ids[1]));
  ASSERT_TRUE(service_.remove(ids[1]).ok()) << "the last of that page";
  EXPECT_EQ(service_.jobs(filter).value().jobs[0].id(), ids[2]);
  filter.after = ids[2];
  EXPECT_EQ(service_.jobs(filter).error().field(), "after");
  filter = {};
  filter.newest_first = true;
  filter.states = {proto::JOB_STATE_QUEUED};
  page = service_.jobs(filter).value();
  EXPECT_EQ(page.jobs.size(), 4u);
  EXPECT_EQ(page.jobs[0].id(), ids[4]);
  EXPECT_EQ(page.next, "");
  filter.limit = 0;
  EXPECT_EQ(service_.jobs(filter).error().field(), "limit");
}

TEST_F(ServiceTest, ReadsLogsBySlice) {
  const std::string id = submit();
  EXPECT_TRUE(service_.logs(id, 0, 0, 0, 100).value().complete);
  set_state(id, proto::JOB_STATE_RUNNING);
  ASSERT_TRUE(store_->append_log(id, 1, 0, 0, "one\ntwo\n"));
  const auto slice = service_.logs(id, 0, 0, 2, 4).value();
  EXPECT_EQ(slice.data, "e\ntw");
  EXPECT_EQ(slice.next, 6);
  EXPECT_EQ(slice.bytes, 8);
  EXPECT_FALSE(slice.complete);
  const Status no_rank = service_.logs(id, 0, 1, 0, 4).error();
  EXPECT_EQ(no_rank.field(), "rank");
  EXPECT_EQ(no_rank.rule(), "must be 0, or -1 for the launcher");
  EXPECT_EQ(service_.logs(id, 2, 0, 0, 4).error().field(), "attempt");
  EXPECT_EQ(service_.log_streams(id).value().size(), 1u);
}

TEST_F(ServiceTest, ACheckpointInUseStays) {
  const std::string id = submit();
  set_state(id, proto::JOB_STATE_RUNNING);
  for (const char* checkpoint : {"ckpt-1", "ckpt-2"}) {
    ASSERT_TRUE(store_->edit_job(id, [&](JobEdit& edit) {
      auto& manifest = edit.checkpoints.emplace_back();
      manifest.set_id(checkpoint);
      manifest.set_job(id);
      edit.job.set_checkpoint(checkpoint);
      return Status();
    }));
  }
  EXPECT_EQ(service_.remove_checkpoint("ckpt-2").code(), Code::kFailedPrecondition);
  EXPECT_TRUE(service_.remove_checkpoint("ckpt-1").ok());
  set_state(id, proto::JOB_STATE_SUCCEEDED);
  EXPECT_TRUE(service_.remove_checkpoint("ckpt-2").ok());
  EXPECT_EQ(service_.job(id).value().checkpoint(), "");
  EXPECT_TRUE(service_.checkpoints(id).value().empty());
}

TEST_F(ServiceTest, WhereTheBestCheckpointIsRemovedTheNextBestIsIt) {
  const std::string id = submit();
  const std::map<std::string, std::optional<double>> losses{
      {"ckpt-1", 2.5}, {"ckpt-2", 1.5}, {"ckpt-3", std::nullopt}, {"ckpt-4", 2.0}};
  ASSERT_TRUE(store_->edit_job(id, [&](JobEdit& edit) {
    for (const auto& [checkpoint, loss] : losses) {
      auto& manifest = edit.checkpoints.emplace_back();
      manifest.set_id(checkpoint);
      manifest.set_job(id);
      if (loss) manifest.set_validation_loss(*loss);
    }
    edit.job.set_checkpoint("ckpt-4");
    edit.job.set_best_checkpoint("ckpt-2");
    return Status();
  }));
  set_state(id, proto::JOB_STATE_SUCCEEDED);
  const auto best_without = [&](const char* checkpoint) {
    EXPECT_TRUE(service_.remove_checkpoint(checkpoint).ok());
    return service_.job(id).value().best_checkpoint();
  };
  EXPECT_EQ(best_without("ckpt-1"), "ckpt-2");
  EXPECT_EQ(best_without("ckpt-2"), "ckpt-4");
  EXPECT_EQ(best_without("ckpt-4"), "");
}

TEST_F(ServiceTest, TellsHowItIs) {
  join("n1", 2);
  submit();
  const Health health = service_.health();
  EXPECT_TRUE(health.ready);
  EXPECT_EQ(health.nodes_ready, 1);
  EXPECT_EQ(health.jobs.at("queued"), 1);
}

TEST_F(ServiceTest, ADiskWithoutRoomIsAProblem) {
  // The store (in memory) takes the probe's record; procfs is a file system that is always full.
  CoordinatorService full({*store_, content_, clock_, "/proc", "test"});
  const Health health = full.health();
  EXPECT_FALSE(health.ready);
  EXPECT_EQ(health.disk_free_bytes, 0);
  EXPECT_THAT(health.problem, testing::HasSubstr("the coordinator's disk is full"));
  EXPECT_THAT(health.problem, testing::HasSubstr("got 0 free"));
  const std::string roomy = std::filesystem::temp_directory_path().string();
  CoordinatorService other({*store_, content_, clock_, roomy, "test"});
  EXPECT_TRUE(other.health().ready) << other.health().problem;
  chunks_.set_full(true);  // there is some room, but less than the chunk store needs to go on
  clock_.advance(std::chrono::seconds(2));
  EXPECT_FALSE(other.health().ready);
  EXPECT_THAT(other.health().problem, testing::HasSubstr("full"));
  chunks_.set_full(false);
  clock_.advance(std::chrono::seconds(2));
  EXPECT_TRUE(other.health().ready) << other.health().problem;
}

TEST_F(ServiceTest, WhatNoNodesMemoryHoldsIsRefused) {
  proto::JobSpec large = spec();
  large.mutable_training()->set_batch_size(1 << 20);
  EXPECT_TRUE(service_.validate(large)) << "no node is known yet";
  join("small", 4, int64_t{16} << 30);
  const auto refused = service_.validate(large);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kInvalidArgument);
  EXPECT_EQ(refused.error().field(), "training.micro_batch_size");
  EXPECT_EQ(refused.error().value(), "1048576");
  EXPECT_THAT(refused.error().rule(), testing::HasSubstr("a slot there has at most 3.6 GiB"));
  EXPECT_THAT(refused.error().rule(), testing::HasSubstr("these nodes can hold data "));
  large.mutable_training()->set_micro_batch_size(4);
  EXPECT_TRUE(service_.validate(large)) << "accumulated in small parts";
  large.mutable_training()->clear_micro_batch_size();
  join("unknown", 1);
  EXPECT_TRUE(service_.validate(large)) << "this node does not say what it has";
  large.mutable_parallel()->set_data(2);
  EXPECT_FALSE(service_.validate(large)) << "two such nodes are needed";
  proto::JobSpec wide = spec();
  auto& config = *wide.mutable_model()->mutable_config()->mutable_fields();
  config["n_embd"].set_number_value(8192);
  config["n_layer"].set_number_value(40);
  wide.mutable_resources()->set_slots(2);
  wide.mutable_parallel()->set_tensor(2);
  const auto too_wide = service_.validate(wide);
  EXPECT_EQ(too_wide.error().field(), "parallel.tensor");
  EXPECT_THAT(too_wide.error().rule(), testing::HasSubstr("these nodes can hold data 1 x "))
      << "on the node of which nothing is known";
}

TEST_F(ServiceTest, AGpusMemoryIsWhatItsRanksHave) {
  proto::NodeInfo node;
  node.set_name("gpus");
  node.set_slots(2);
  node.set_gpus(2);
  node.set_memory_bytes(int64_t{64} << 30);
  node.set_gpu_memory_bytes(int64_t{8} << 30);
  node.set_state(proto::NODE_STATE_READY);
  ASSERT_TRUE(store_->put_node(node, true).ok());
  join("cpus", 2, int64_t{8} << 30);
  proto::PlanRequest request;
  *request.mutable_job() = spec();
  request.mutable_job()->mutable_parallel()->set_mode(proto::PARALLEL_MODE_AUTO);
  request.mutable_job()->mutable_resources()->set_device(proto::COMPUTE_DEVICE_GPU);
  const auto small = service_.plan(request);
  ASSERT_TRUE(small) << small.error().to_string();
  ASSERT_TRUE(small->has_chosen()) << small->reason();
  EXPECT_EQ(small->chosen().device(), proto::COMPUTE_DEVICE_GPU);
  EXPECT_GT(small->chosen().memory_bytes(), int64_t{1} << 30);
  EXPECT_GT(small->chosen().host_bytes(), int64_t{1} << 30);
  // 1.2 billion parameters: 20 GB of state, of which two GPUs of 8 GiB hold less.
  auto& config = *request.mutable_job()->mutable_model()->mutable_config()->mutable_fields();
  config["n_embd"].set_number_value(2048);
  config["n_head"].set_number_value(16);
  config["n_layer"].set_number_value(24);
  const auto large = service_.plan(request);
  ASSERT_TRUE(large) << large.error().to_string();
  EXPECT_FALSE(large->has_chosen());
  EXPECT_THAT(large->reason(), testing::HasSubstr("the largest GPU has 8 GiB"));
  EXPECT_THAT(large->reason(), testing::HasSubstr("slots as large as the largest there would do"));
  proto::JobSpec written = request.job();
  written.mutable_parallel()->Clear();
  const auto refused = service_.validate(written);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().rule(), testing::HasSubstr("a GPU there has at most 8 GiB"));
}

// Stacks of 1 MiB and rooms for products: a rank of 9 threads needs 8 of them more than one of 1.
TEST_F(ServiceTest, ARanksThreadsNeedMemory) {
  proto::NodeInfo node;
  node.set_name("a");
  node.set_slots(1);
  node.set_memory_bytes(int64_t{16} << 30);
  node.set_state(proto::NODE_STATE_READY);
  const auto needed = [&](int cores, int asked) {
    node.set_cores(cores);
    EXPECT_TRUE(store_->put_node(node, true).ok());
    proto::PlanRequest request;
    *request.mutable_job() = spec();
    request.mutable_job()->mutable_parallel()->set_mode(proto::PARALLEL_MODE_AUTO);
    request.mutable_job()->mutable_resources()->set_threads_per_slot(asked);
    const auto plan = service_.plan(request);
    EXPECT_TRUE(plan) << plan.error().to_string();
    return plan ? plan->chosen().memory_bytes() : 0;
  };
  const int64_t one = needed(1, 0);
  EXPECT_GT(needed(9, 0), one + 8 * 1'000'000);
  EXPECT_EQ(needed(9, 0), needed(1, 9));
  EXPECT_EQ(needed(9, 1), one);
}

TEST_F(ServiceTest, WhatAJobNeedsOfANodeIsKept) {
  join("a", 2, int64_t{16} << 30);
  proto::JobSpec open = spec();
  const auto written = service_.submit(open, "", "");
  ASSERT_TRUE(written) << written.error().to_string();
  EXPECT_GT(written->rank_memory().host_bytes(), 0);
  EXPECT_EQ(written->rank_memory().gpu_bytes(), written->rank_memory().host_bytes());
  EXPECT_EQ(written->rank_memory().gpu_host_bytes(), 0);
  open.mutable_parallel()->set_mode(proto::PARALLEL_MODE_AUTO);
  const auto planned = service_.submit(open, "", "");
  ASSERT_TRUE(planned) << planned.error().to_string();
  EXPECT_EQ(planned->rank_memory().host_bytes(), planned->plan().chosen().memory_bytes());
  EXPECT_EQ(planned->rank_memory().gpu_bytes(), 0);
  EXPECT_EQ(planned->spec().resources().device(), proto::COMPUTE_DEVICE_CPU) << "as planned for";
}

// What made a job too large is named as it was written.
TEST_F(ServiceTest, TooManyRanksAreToldOfWhatWasWritten) {
  join("a", 2, int64_t{16} << 30);
  proto::JobSpec wide = spec();
  wide.mutable_training()->set_batch_size(8);
  wide.mutable_parallel()->set_data(4);
  EXPECT_EQ(service_.validate(wide).error().field(), "parallel.data");
  EXPECT_EQ(service_.validate(wide).error().value(), "4");
  wide.mutable_parallel()->set_tensor(2);
  EXPECT_EQ(service_.validate(wide).error().field(), "parallel");
  EXPECT_EQ(service_.validate(wide).error().value(), "data 4 x sequence 1 x tensor 2");
  wide.mutable_resources()->set_slots(8);
  EXPECT_EQ(service_.validate(wide).error().field(), "resources.slots");
  EXPECT_EQ(service_.validate(wide).error().value(), "8");
}

TEST_F(ServiceTest, AnAutomaticMeshIsChosenAtSubmission) {
  proto::JobSpec open = spec();
  open.mutable_parallel()->set_mode(proto::PARALLEL_MODE_AUTO);
  const auto early = service_.submit(open, "", "");
  ASSERT_FALSE(early) << "no node has joined";
  EXPECT_EQ(early.error().field(), "resources.slots");
  join("a", 2, int64_t{16} << 30);
  join("b", 2, int64_t{16} << 30);
  open.mutable_resources()->set_slots(4);
  const auto job = service_.submit(open, "key", "hash");
  ASSERT_TRUE(job) << job.error().to_string();
  const proto::ParallelSpec& mesh = job->spec().parallel();
  EXPECT_EQ(mesh.mode(), proto::PARALLEL_MODE_UNSPECIFIED);
  EXPECT_EQ(mesh.data() * mesh.sequence() * mesh.tensor(), 4);
  EXPECT_EQ(job->spec().resources().slots(), 4);
  EXPECT_GT(job->spec().training().micro_batch_size(), 0);
  EXPECT_EQ(job->plan().chosen().data(), mesh.data());
  EXPECT_NE(job->plan().reason(), "");
  EXPECT_EQ(job->plan().meshes_size(), 0);
  EXPECT_EQ(service_.events(job->id(), 0, 10).value().items.back().type(), "planned");
  // What was chosen stays, whatever joins later, and the stored spec says it.
  join("c", 8, int64_t{16} << 30);
  EXPECT_EQ(service_.submit(open, "key", "hash")->spec().parallel().data(), mesh.data());
  const auto again = service_.validate(job->spec());
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(again->parallel().data(), mesh.data());
}

TEST_F(ServiceTest, APlanTellsOfEveryMeshAndOfWhatDoesNotFit) {
  join("a", 2, int64_t{4} << 30);
  proto::PlanRequest request;
  *request.mutable_job() = spec();
  request.mutable_job()->mutable_tasks(0)->mutable_data()->set_train("not/uploaded.txt");
  request.mutable_job()->mutable_parallel()->set_mode(proto::PARALLEL_MODE_AUTO);
  const auto small = service_.plan(request);
  ASSERT_TRUE(small) << small.error().to_string();
  EXPECT_TRUE(small->has_chosen());
  EXPECT_GE(small->meshes_size(), 3);  // one rank; two over the data or the tensor axis
  auto& config = *request.mutable_job()->mutable_model()->mutable_config()->mutable_fields();
  config["n_embd"].set_number_value(8192);
  config["n_layer"].set_number_value(40);
  const auto large = service_.plan(request);
  ASSERT_TRUE(large) << large.error().to_string();
  EXPECT_FALSE(large->has_chosen());
  EXPECT_THAT(large->meshes(0).problem(), testing::HasSubstr("the largest slot has 1.8 GiB"));
  request.mutable_job()->mutable_tasks(0)->mutable_data()->set_train(data_);
  const auto refused = service_.submit(request.job(), "", "");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().field(), "parallel");
  EXPECT_EQ(refused.error().value(), "auto");
  EXPECT_THAT(refused.error().rule(), testing::HasSubstr("a rank needs"));
  // More slots than there are, and a model that nobody knows.
  request.mutable_job()->mutable_resources()->set_slots(3);
  EXPECT_EQ(service_.plan(request).error().field(), "resources.slots");
  proto::PlanRequest unknown;
  *unknown.mutable_job() = spec();
  unknown.mutable_job()->set_kind(proto::JOB_KIND_FINE_TUNE);
  unknown.mutable_job()->mutable_model()->Clear();
  unknown.mutable_job()->mutable_model()->set_from("./folder");
  EXPECT_EQ(service_.plan(unknown).error().field(), "model.from");
  *unknown.mutable_model() = spec().model();
  const auto described = service_.plan(unknown);
  ASSERT_TRUE(described) << described.error().to_string();
  EXPECT_EQ(described->meshes_size(), 1) << "the mesh that the job says";
}

TEST_F(ServiceTest, ADrainHasABoundAndNeedsASupervisor) {
  EXPECT_EQ(service_.drain(1).code(), Code::kFailedPrecondition);
  Drain drain(clock_);
  CoordinatorService service({*store_, content_, clock_, "", "test", &drain});
  EXPECT_EQ(service.drain(-1).field(), "seconds");
  EXPECT_EQ(service.drain(3601).field(), "seconds");
  EXPECT_TRUE(service.drain(5).ok());
  EXPECT_TRUE(drain.active());
  clock_.advance(std::chrono::seconds(6));
  EXPECT_FALSE(drain.active());
  EXPECT_TRUE(service.drain(5).ok());
  EXPECT_TRUE(service.drain(0).ok());
  EXPECT_FALSE(drain.active());
}

}  // namespace
}  // namespace weft
