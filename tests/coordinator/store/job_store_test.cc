#include "coordinator/store/job_store.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "coordinator/store/topics.h"
#include "proto/base/hash.h"

namespace weft {
namespace {

// Refuses writes while `full` is set.
class FullDisk final : public KeyValue {
 public:
  explicit FullDisk(std::unique_ptr<KeyValue> inner) : inner_(std::move(inner)) {}
  Status write(const WriteSet& set) override {
    if (full) return {Code::kResourceExhausted, "disk full"};
    return inner_->write(set);
  }
  Result<std::optional<std::string>> get(const std::string& key) const override {
    return inner_->get(key);
  }
  Status scan(const std::string& from, const std::string& to,
              const std::function<bool(std::string_view, std::string_view)>& visit) const override {
    return inner_->scan(from, to, visit);
  }
  Result<std::optional<std::pair<std::string, std::string>>> last(
      const std::string& from, const std::string& to) const override {
    return inner_->last(from, to);
  }
  bool full = false;

 private:
  std::unique_ptr<KeyValue> inner_;
};

class JobStoreTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("weft-store-" + random_hex(8));
    open();
  }
  void TearDown() override {
    store_.reset();
    std::filesystem::remove_all(folder_);
  }
  void open() {
    store_.reset();
    std::unique_ptr<KeyValue> inner = make_memory_key_value();
    if (GetParam()) inner = open_rocksdb_key_value(folder_.string()).value();
    auto disk = std::make_unique<FullDisk>(std::move(inner));
    disk_ = disk.get();
    store_ = JobStore::open(std::move(disk), clock_).value();
  }
  JobEdit fresh(const std::string& id, const std::string& key = "", const std::string& hash = "") {
    JobEdit edit;
    edit.job.set_id(id);
    edit.job.set_state(proto::JOB_STATE_QUEUED);
    edit.job.set_idempotency_key(key);
    edit.job.set_request_hash(hash);
    edit.event("submitted", "info", "submitted");
    return edit;
  }
  void start(const std::string& id, int attempt) {
    ASSERT_TRUE(store_->edit_job(id, [&](JobEdit& edit) {
      edit.job.set_state(proto::JOB_STATE_RUNNING);
      edit.job.set_attempt(attempt);
      return Status();
    }));
  }
  static Status tell(JobEdit& edit) {
    edit.event("note", "info", "something");
    return {};
  }

  SimulatedClock clock_{1000};
  std::filesystem::path folder_;
  FullDisk* disk_ = nullptr;
  std::unique_ptr<JobStore> store_;
};

TEST_P(JobStoreTest, KeepsTheOrderOfSubmissionAndNumbersEventsWithoutGaps) {
  for (const char* id : {"job-c", "job-a", "job-b"}) ASSERT_TRUE(store_->create_job(fresh(id)));
  std::vector<std::string> order;
  for (const JobPointer& job : store_->jobs()) order.push_back(job->id());
  EXPECT_EQ(order, (std::vector<std::string>{"job-c", "job-a", "job-b"}));
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(store_->edit_job("job-a", tell));
  const auto events = store_->events("job-a", 2, 2).value();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].sequence(), 3);
  EXPECT_EQ(events[1].sequence(), 4);
  EXPECT_EQ(store_->events("job-a", 5, 100).value().size(), 0u);
}

TEST_P(JobStoreTest, TheSameIdempotencyKeyGivesTheSameJob) {
  ASSERT_TRUE(store_->create_job(fresh("job-1", "key", "hash")));
  EXPECT_EQ(store_->create_job(fresh("job-2", "key", "hash")).value().id(), "job-1");
  EXPECT_EQ(store_->create_job(fresh("job-3", "key", "other")).error().code(),
            Code::kAlreadyExists);
  EXPECT_EQ(store_->jobs().size(), 1u);
}

TEST_P(JobStoreTest, RefusesAWriteOfAnotherAttemptOrOfAJobAtRest) {
  ASSERT_TRUE(store_->create_job(fresh("job-1")));
  EXPECT_EQ(store_->edit_attempt("job-1", 0, tell).error().code(), Code::kStale);
  start("job-1", 2);
  EXPECT_EQ(store_->edit_attempt("job-1", 1, tell).error().code(), Code::kStale);
  EXPECT_EQ(store_->apply_rank("job-1", {1, 0, 1}, tell).error().code(), Code::kStale);
  EXPECT_TRUE(store_->edit_attempt("job-1", 2, tell));
  EXPECT_EQ(store_->edit_attempt("job-9", 2, tell).error().code(), Code::kNotFound);
}

TEST_P(JobStoreTest, AppliesEachMessageOfARankOnceAndInOrder) {
  ASSERT_TRUE(store_->create_job(fresh("job-1")));
  start("job-1", 1);
  EXPECT_TRUE(store_->apply_rank("job-1", {1, 0, 1}, tell).value());
  EXPECT_FALSE(store_->apply_rank("job-1", {1, 0, 1}, tell).value());
  EXPECT_EQ(store_->apply_rank("job-1", {1, 0, 3}, tell).error().code(), Code::kFailedPrecondition);
  EXPECT_TRUE(store_->apply_rank("job-1", {1, 1, 1}, tell).value()) << "another rank's numbers";
  EXPECT_TRUE(store_
                  ->apply_rank("job-1", {1, 0, 2},
                               [](JobEdit& edit) {
                                 edit.job.set_state(proto::JOB_STATE_SUCCEEDED);
                                 return Status();
                               })
                  .value());
  EXPECT_FALSE(store_->apply_rank("job-1", {1, 0, 2}, tell).value())
      << "a repeated last message is acknowledged, not stale";
  EXPECT_EQ(store_->events("job-1", 0, 100).value().size(), 3u);
}

TEST_P(JobStoreTest, AFullDiskChangesNothingAndWorkGoesOnAfterwards) {
  ASSERT_TRUE(store_->create_job(fresh("job-1")));
  start("job-1", 1);
  disk_->full = true;
  EXPECT_EQ(store_->create_job(fresh("job-2", "key", "a")).error().code(),
            Code::kResourceExhausted);
  EXPECT_EQ(store_->apply_rank("job-1", {1, 0, 1}, tell).error().code(), Code::kResourceExhausted);
  EXPECT_EQ(store_->append_log("job-1", 1, 0, 0, "text").error().code(), Code::kResourceExhausted);
  EXPECT_EQ(store_->find("job-2"), nullptr);
  disk_->full = false;
  EXPECT_TRUE(store_->apply_rank("job-1", {1, 0, 1}, tell).value());
  EXPECT_EQ(store_->events("job-1", 0, 9).value().back().sequence(), 2);
  const auto job = store_->create_job(fresh("job-2", "key", "b"));
  ASSERT_TRUE(job);
  EXPECT_EQ(job->submit_sequence(), 2);
}

TEST_P(JobStoreTest, LogsAreAppendedOncePerByte) {
  ASSERT_TRUE(store_->create_job(fresh("job-1")));
  start("job-1", 2);
  EXPECT_EQ(store_->append_log("job-1", 2, 0, 0, "hello ").value(), 6);
  EXPECT_EQ(store_->append_log("job-1", 2, 0, 0, "hello ").value(), 6) << "repeated";
  EXPECT_EQ(store_->append_log("job-1", 2, 0, 3, "lo world").value(), 11) << "overlapping";
  EXPECT_EQ(store_->append_log("job-1", 2, 0, 20, "later").value(), 11) << "a gap stores nothing";
  EXPECT_EQ(store_->append_log("job-1", 1, -1, 0, "mpirun").value(), 6) << "an earlier attempt";
  EXPECT_FALSE(store_->append_log("job-1", 3, 0, 0, "x")) << "an attempt that never was";
  EXPECT_EQ(store_->read_log("job-1", 2, 0, 0, 100).value(), "hello world");
  EXPECT_EQ(store_->read_log("job-1", 2, 0, 4, 4).value(), "o wo");
  EXPECT_EQ(store_->read_log("job-1", 2, 0, 11, 4).value(), "");
  const auto extents = store_->log_extents("job-1").value();
  ASSERT_EQ(extents.size(), 2u);
  EXPECT_EQ(extents[0].attempt, 1);
  EXPECT_EQ(extents[0].rank, -1);
  EXPECT_EQ(extents[1].bytes, 11);
}

TEST_P(JobStoreTest, RemovesAFinishedJobWithEverythingOfIt) {
  ASSERT_TRUE(store_->create_job(fresh("job-1", "key", "a")));
  ASSERT_TRUE(store_->create_job(fresh("job-10")));
  start("job-1", 1);
  EXPECT_EQ(store_->remove_job("job-1").code(), Code::kFailedPrecondition);
  ASSERT_TRUE(store_->append_log("job-1", 1, 0, 0, "text"));
  ASSERT_TRUE(store_->edit_attempt("job-1", 1, [](JobEdit& edit) {
    proto::CheckpointManifest& manifest = edit.checkpoints.emplace_back();
    manifest.set_id("ckpt-1");
    manifest.set_job("job-1");
    edit.job.set_state(proto::JOB_STATE_FAILED);
    return Status();
  }));
  EXPECT_EQ(store_->checkpoints("job-1").value().size(), 1u);
  ASSERT_TRUE(store_->remove_job("job-1").ok());
  EXPECT_EQ(store_->find("job-1"), nullptr);
  EXPECT_EQ(store_->events("job-1", 0, 9).value().size(), 0u);
  EXPECT_EQ(store_->log_extents("job-1").value().size(), 0u);
  EXPECT_EQ(store_->checkpoint("ckpt-1").error().code(), Code::kNotFound);
  EXPECT_EQ(store_->events("job-10", 0, 9).value().size(), 1u) << "a longer id with its prefix";
  EXPECT_EQ(store_->create_job(fresh("job-2", "key", "b")).value().id(), "job-2");
}

TEST_P(JobStoreTest, WakesTheWatchersOfWhatChanged) {
  ASSERT_TRUE(store_->create_job(fresh("job-1")));
  int events = 0, logs = 0, other = 0;
  auto a = store_->hub().subscribe("job-1", kTopicEvents, [&] { ++events; });
  auto b = store_->hub().subscribe("job-1", kTopicLogs, [&] { ++logs; });
  auto c = store_->hub().subscribe("job-2", ~0u, [&] { ++other; });
  ASSERT_TRUE(store_->edit_job("job-1", tell));
  EXPECT_EQ(events, 1);
  EXPECT_EQ(logs, 0);
  EXPECT_EQ(other, 0);
  a.reset();
  ASSERT_TRUE(store_->edit_job("job-1", tell));
  EXPECT_EQ(events, 1);
}

TEST_P(JobStoreTest, ComesBackAsItWas) {
  if (!GetParam()) GTEST_SKIP() << "memory forgets";
  ASSERT_TRUE(store_->create_job(fresh("job-1", "key", "hash")));
  start("job-1", 1);
  ASSERT_TRUE(store_->apply_rank("job-1", {1, 0, 1}, [](JobEdit& edit) {
    edit.metrics.emplace_back().set_step(7);
    edit.job.set_step(7);
    return tell(edit);
  }));
  proto::NodeInfo node;
  node.set_name("n1");
  ASSERT_TRUE(store_->put_node(node, true).ok());
  open();
  EXPECT_EQ(store_->job("job-1").value().step(), 7);
  EXPECT_EQ(store_->nodes().size(), 1u);
  EXPECT_FALSE(store_->apply_rank("job-1", {1, 0, 1}, tell).value());
  ASSERT_TRUE(store_->edit_job("job-1", tell));
  EXPECT_EQ(store_->events("job-1", 2, 9).value().at(0).sequence(), 3);
  EXPECT_EQ(store_->create_job(fresh("job-2", "key", "hash")).value().id(), "job-1");
  EXPECT_EQ(store_->create_job(fresh("job-3")).value().submit_sequence(), 2);
}

INSTANTIATE_TEST_SUITE_P(Stores, JobStoreTest, testing::Bool(),
                         [](const auto& p) { return p.param ? "rocksdb" : "memory"; });

}  // namespace
}  // namespace weft
