#include "coordinator/store/content.h"

#include <gtest/gtest.h>

#include <future>
#include <utility>

#include "proto/base/hash.h"
#include "tests/coordinator/memory_chunks.h"

namespace weft {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

// Lets something happen while a collection looks: it has the manifests and is told the chunks.
class WatchedChunks final : public MemoryChunks {
 public:
  Status for_each(const std::function<void(const std::string&, int64_t)>& visit) const override {
    if (meanwhile) std::exchange(meanwhile, nullptr)();
    return MemoryChunks::for_each(visit);
  }
  mutable std::function<void()> meanwhile;
};

class ContentTest : public testing::Test {
 protected:
  std::string put(const std::string& bytes) {
    const std::string hash = sha256_hex(bytes);
    EXPECT_TRUE(content_.put_chunk(hash, bytes).ok());
    return hash;
  }
  static proto::ObjectManifest object(const std::string& path, const std::string& bytes) {
    proto::ObjectManifest manifest;
    add(manifest, path, bytes);
    return manifest;
  }
  static void add(proto::ObjectManifest& manifest, const std::string& path,
                  const std::string& bytes) {
    auto* file = manifest.add_files();
    file->set_path(path);
    file->set_size(static_cast<int64_t>(bytes.size()));
    auto* chunk = file->add_chunks();
    chunk->set_hash(sha256_hex(bytes));
    chunk->set_size(static_cast<int64_t>(bytes.size()));
  }

  SimulatedClock clock_{1000};
  WatchedChunks chunks_;
  std::unique_ptr<JobStore> store_ = JobStore::open(make_memory_key_value(), clock_).value();
  Content content_{chunks_, *store_, clock_};
};

TEST_F(ContentTest, ChunksMustBeWhatTheirNameSays) {
  put("text");
  EXPECT_EQ(content_.put_chunk(sha256_hex("text"), "other").code(), Code::kInvalidArgument);
  EXPECT_EQ(content_.put_chunk("../../etc/passwd", "x").field(), "hash");
  EXPECT_EQ(content_.put_chunk(sha256_hex(""), "").field(), "size");
  EXPECT_FALSE(content_.get_chunk("x"));
  EXPECT_EQ(content_.missing({sha256_hex("a"), sha256_hex("text"), sha256_hex("a")}).value(),
            std::vector<std::string>{sha256_hex("a")});
}

TEST_F(ContentTest, AnObjectNeedsItsChunksAndHasTheIdOfItsFiles) {
  auto manifest = object("b.txt", "text");
  EXPECT_EQ(content_.put_object(manifest).error().code(), Code::kFailedPrecondition);
  put("text");
  put("more");
  const auto stored = content_.put_object(manifest).value();
  EXPECT_TRUE(stored.id().starts_with("obj-"));
  EXPECT_EQ(stored.id().size(), 36u);
  EXPECT_EQ(content_.put_object(manifest).value().id(), stored.id());
  add(manifest, "a.txt", "more");
  const auto sorted = content_.put_object(manifest).value();
  EXPECT_EQ(sorted.files(0).path(), "a.txt");
  EXPECT_EQ(sorted.bytes(), 8);
  manifest.set_id("obj-00000000000000000000000000000000");
  EXPECT_EQ(content_.put_object(manifest).error().field(), "id");
}

TEST_F(ContentTest, RefusesPathsThatLeaveTheFolder) {
  put("text");
  for (const char* path :
       {"/etc/passwd", "../x", "a/../x", "a//b", "", ".", "a/.", "a\\b", "a/", "a\nb"}) {
    const auto result = content_.put_object(object(path, "text"));
    ASSERT_FALSE(result) << path;
    EXPECT_EQ(result.error().field(), "files[0].path") << path;
  }
  auto twice = object("a", "text");
  add(twice, "a", "text");
  EXPECT_EQ(content_.put_object(twice).error().field(), "files[1].path");
  auto folder = object("a", "text");
  add(folder, "a/b", "text");
  EXPECT_FALSE(content_.put_object(folder));
  auto size = object("a", "text");
  size.mutable_files(0)->set_size(5);
  EXPECT_EQ(content_.put_object(size).error().field(), "files[0].size");
}

TEST_F(ContentTest, AChunkIsAsLargeAsItsManifestSays) {
  put("text");
  put("more");
  auto manifest = object("b", "text");
  add(manifest, "a", "more");  // stored in path order, told in the order given
  auto* chunk = manifest.mutable_files(1)->add_chunks();
  chunk->set_hash(sha256_hex("text"));
  for (const int64_t size : {3, 5}) {
    chunk->set_size(size);
    manifest.mutable_files(1)->set_size(4 + size);
    const auto result = content_.put_object(manifest);
    ASSERT_FALSE(result) << size;
    EXPECT_EQ(result.error().code(), Code::kInvalidArgument);
    EXPECT_EQ(result.error().field(), "files[1].chunks[1].size");
    EXPECT_EQ(result.error().value(), std::to_string(size));
    EXPECT_EQ(result.error().rule(), "must be the size of the stored chunk, 4");
  }
  chunk->set_size(4);
  manifest.mutable_files(1)->set_size(8);
  EXPECT_TRUE(content_.put_object(manifest));
}

TEST_F(ContentTest, CollectsOnlyWhatNothingNeedsForLong) {
  const auto kept = object("a", "kept");
  put("kept");
  put("loose");
  ASSERT_TRUE(content_.put_object(kept));
  EXPECT_EQ(content_.collect(minutes(60)).value(), 0);
  clock_.advance(minutes(50));
  ASSERT_TRUE(content_.missing({sha256_hex("loose")}).value().empty()) << "an upload relies on it";
  clock_.advance(minutes(20));
  EXPECT_EQ(content_.collect(minutes(60)).value(), 0);
  clock_.advance(minutes(61));
  EXPECT_EQ(content_.collect(minutes(60)).value(), 1);
  EXPECT_TRUE(content_.get_chunk(sha256_hex("kept")));
  EXPECT_FALSE(content_.get_chunk(sha256_hex("loose")));
}

TEST_F(ContentTest, CollectsMoreThanIsRemovedAtOnce) {
  for (int i = 0; i < 150; ++i) put(std::to_string(i));
  EXPECT_EQ(content_.collect(minutes(60)).value(), 0);
  clock_.advance(minutes(61));
  put("7");  // an upload relies on it again
  EXPECT_EQ(content_.collect(minutes(60)).value(), 149);
  EXPECT_TRUE(content_.get_chunk(sha256_hex("7")));
  EXPECT_FALSE(content_.get_chunk(sha256_hex("149")));
}

// A job of one attempt, and its checkpoints.
class HoldsTest : public ContentTest {
 protected:
  HoldsTest() {
    start("job-1", 1);
    EXPECT_EQ(content_.collect(minutes(60)).value(), 0) << "the first one removes nothing";
  }
  void start(const std::string& id, int attempt) {
    if (!store_->find(id)) {
      JobEdit edit;
      edit.job.set_id(id);
      ASSERT_TRUE(store_->create_job(edit));
    }
    set(id, proto::JOB_STATE_RUNNING, attempt);
  }
  void set(const std::string& id, proto::JobState state, int attempt = 1) {
    ASSERT_TRUE(store_->edit_job(id, [&](JobEdit& edit) {
      edit.job.set_state(state);
      edit.job.set_attempt(attempt);
      return Status();
    }));
  }
  std::string put(const std::string& bytes, const Content::Attempt& by = {"job-1", 1}) {
    const std::string hash = sha256_hex(bytes);
    EXPECT_TRUE(content_.put_chunk(hash, bytes, by).ok());
    return hash;
  }
  Status commit(const std::string& id, const std::vector<std::string>& hashes,
                const Content::Attempt& by = {"job-1", 1}) {
    return content_.commit(by, hashes,
                           [&]() -> Result<bool> { return store(id, by.first, hashes).ok(); });
  }
  Status store(const std::string& id, const std::string& job,
               const std::vector<std::string>& hashes) {
    const auto stored = store_->edit_job(job, [&](JobEdit& edit) -> Status {
      proto::CheckpointManifest& manifest = edit.checkpoints.emplace_back();
      manifest.set_id(id);
      manifest.set_job(job);
      manifest.set_created_ms(++created_ms_);
      auto* tile = manifest.add_tensors()->add_tiles();
      for (const std::string& hash : hashes) tile->add_chunks()->set_hash(hash);
      return {};
    });
    EXPECT_TRUE(stored);
    return {};
  }
  void remove(const std::string& id) {
    const auto manifest = store_->checkpoint(id).value();
    ASSERT_TRUE(store_->edit_job(manifest.job(), [&](JobEdit& edit) {
      edit.removed_checkpoints.push_back(id);
      return Status();
    }));
  }
  int64_t collect() { return content_.collect(minutes(60)).value(); }
  bool here(const std::string& hash) const { return chunks_.has(hash); }

  int64_t created_ms_ = 0;
};

TEST_F(HoldsTest, AnAttemptsChunksWaitForItsCommitAndNoLongerThanItsCheckpoint) {
  const std::string a = put("a"), b = put("b");
  clock_.advance(hours(30));  // a large model, a disk that stays full
  EXPECT_EQ(collect(), 0);
  ASSERT_TRUE(commit("ckpt-1", {a}).ok());
  remove("ckpt-1");
  EXPECT_EQ(collect(), 1) << "at once";
  EXPECT_FALSE(here(a));
  EXPECT_TRUE(here(b)) << "of the next checkpoint";
}

TEST_F(HoldsTest, WhatEndsAnAttemptGivesItsChunksBack) {
  for (const auto state :
       {proto::JOB_STATE_SUCCEEDED, proto::JOB_STATE_FAILED, proto::JOB_STATE_CANCELLED,
        proto::JOB_STATE_PAUSED, proto::JOB_STATE_QUEUED}) {
    set("job-1", proto::JOB_STATE_STARTING);
    put("tokenizer");
    set("job-1", proto::JOB_STATE_CANCELLING);
    put("state");
    EXPECT_EQ(collect(), 0);
    set("job-1", state);
    put("sent late");
    EXPECT_EQ(collect(), 3) << state_name(state);
  }
  set("job-1", proto::JOB_STATE_RUNNING);
  put("superseded");
  start("job-1", 2);
  EXPECT_EQ(collect(), 1);
  put("of a job that is gone", {"job-1", 2});
  set("job-1", proto::JOB_STATE_FAILED, 2);
  ASSERT_TRUE(store_->remove_job("job-1").ok());
  EXPECT_EQ(collect(), 1);
}

TEST_F(HoldsTest, EachHoldsForItself) {
  start("job-2", 7);
  const std::string shared = put("shared");
  put("shared", {"job-2", 7});
  ASSERT_TRUE(commit("ckpt-1", {shared}).ok());
  remove("ckpt-1");
  set("job-1", proto::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(collect(), 0);
  ASSERT_TRUE(commit("ckpt-2", {shared}, {"job-2", 7}).ok());
  EXPECT_EQ(collect(), 0);
  remove("ckpt-2");
  EXPECT_EQ(collect(), 1);
}

TEST_F(HoldsTest, ACommitThatDoesNothingGivesNothingBack) {
  const std::string chunk = put("a");
  const std::vector<std::string> hashes{chunk};
  EXPECT_EQ(commit("ckpt-1", {chunk, sha256_hex("absent")}).code(), Code::kFailedPrecondition);
  EXPECT_EQ(content_.commit({"job-1", 1}, hashes, [] { return fail(Code::kStale, "over"); }).code(),
            Code::kStale);
  const auto again = []() -> Result<bool> { return false; };  // a message that came before
  EXPECT_TRUE(content_.commit({"job-1", 1}, hashes, again).ok());
  EXPECT_EQ(collect(), 0);
}

TEST_F(HoldsTest, AfterARestartWhatLivesOnLosesNothing) {
  const std::string first = put("first"), second = put("second"), garbage = put("garbage");
  const std::string old = put("old");
  ASSERT_TRUE(commit("ckpt-0", {old}).ok());
  for (const bool commits : {true, false}) {
    Content again(chunks_, *store_, clock_);
    const auto collect = [&] { return again.collect(minutes(60)).value(); };
    const auto commit = [&](const std::string& id, const std::vector<std::string>& hashes) {
      return again.commit({"job-1", 1}, hashes,
                          [&]() -> Result<bool> { return store(id, "job-1", hashes).ok(); });
    };
    EXPECT_EQ(collect(), 0);
    clock_.advance(hours(2));  // uploads have had their time
    EXPECT_EQ(collect(), 0);
    if (commits) {
      ASSERT_TRUE(commit("ckpt-1", {first}).ok());  // sent before, and so is all it holds
      remove("ckpt-0");
      EXPECT_EQ(collect(), 1) << "a manifest referred to it, nobody relied on it";
      EXPECT_FALSE(here(old));
      const std::string since = sha256_hex("since");
      for (const std::string bytes : {"since", "second"}) {
        ASSERT_TRUE(again.put_chunk(sha256_hex(bytes), bytes, {"job-1", 1}).ok());
      }
      ASSERT_TRUE(commit("ckpt-2", {second, since}).ok());
      EXPECT_EQ(collect(), 1);
      EXPECT_FALSE(here(garbage));
      put("garbage");
    } else {
      set("job-1", proto::JOB_STATE_QUEUED);
      EXPECT_EQ(collect(), 1);
    }
  }
}

TEST_F(HoldsTest, AReaderReadsToTheEnd) {
  const std::string chunk = put("a");
  ASSERT_TRUE(commit("ckpt-1", {chunk}).ok());
  auto reading = content_.read_checkpoint("ckpt-1").value();
  remove("ckpt-1");
  clock_.advance(hours(3));
  EXPECT_EQ(collect(), 0);
  reading.reset();  // one file is read
  EXPECT_EQ(collect(), 0);
  clock_.advance(seconds(59));
  reading = content_.read_checkpoint("ckpt-1").value();  // the next one
  clock_.advance(seconds(59));
  EXPECT_EQ(collect(), 0);
  reading.reset();
  EXPECT_EQ(collect(), 0);
  clock_.advance(seconds(60));
  EXPECT_EQ(collect(), 1);
  EXPECT_EQ(content_.read_checkpoint("ckpt-1").error().code(), Code::kNotFound);
}

TEST_F(HoldsTest, NothingGoesThatCameWhileACollectionLooked) {
  std::vector<std::string> hashes;
  for (const std::string bytes : {"again", "uploaded", "missing", "object", "committed"}) {
    hashes.push_back(put(bytes));
  }
  ASSERT_TRUE(commit("ckpt-1", hashes).ok());
  ASSERT_TRUE(commit("ckpt-0", {put("read")}).ok());
  remove("ckpt-1");
  put("gone");
  set("job-1", proto::JOB_STATE_QUEUED);
  start("job-1", 2);
  const std::vector<std::string> committed{hashes[4]};
  Content::ManifestPointer reading;
  chunks_.meanwhile = [&] {
    put("again", {"job-1", 2});
    ContentTest::put("uploaded");
    EXPECT_TRUE(content_.missing({sha256_hex("missing")}).value().empty());
    EXPECT_TRUE(content_.put_object(object("a", "object")));
    EXPECT_TRUE(commit("ckpt-2", committed, {"job-1", 2}).ok());
    reading = content_.read_checkpoint("ckpt-0").value();
    remove("ckpt-0");
    EXPECT_EQ(std::async(std::launch::async, [&] { return collect(); }).get(), 0)
        << "one at a time";
  };
  EXPECT_EQ(collect(), 1);
  EXPECT_FALSE(here(sha256_hex("gone")));
  chunks_.meanwhile = [&] { remove("ckpt-2"); };
  EXPECT_EQ(collect(), 0);
  EXPECT_EQ(collect(), 1);
  EXPECT_FALSE(here(hashes[4]));
}

TEST_F(ContentTest, AfterARestartTheGracePeriodBeginsAnew) {
  put("loose");
  Content again(chunks_, *store_, clock_);
  clock_.advance(minutes(600));
  EXPECT_EQ(again.collect(minutes(60)).value(), 0);
  clock_.advance(minutes(61));
  EXPECT_EQ(again.collect(minutes(60)).value(), 1);
}

}  // namespace
}  // namespace weft
