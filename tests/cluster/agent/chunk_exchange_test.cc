// A chunk's way into this node's store and the coordinator's, and what waits for one when its agent
// ends.
#include "cluster/agent/chunk_exchange.h"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <filesystem>
#include <future>

#include "proto/base/hash.h"

namespace weft {
namespace {

namespace asio = boost::asio;

class ChunkExchangeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(::mkdtemp(folder_), nullptr);
    store_ = open_chunk_store(folder_).value();
    chunks_ =
        std::make_unique<ChunkExchange>(io_, *store_, 1 << 20, [&](const proto::NodeFrame& f) {
          sent_.push_back(f);
          return true;
        });
  }
  void TearDown() override {
    chunks_.reset();
    store_.reset();
    std::filesystem::remove_all(folder_);
  }

  void put(const std::string& hash, const std::string& bytes) {
    proto::AttemptRef by;
    by.set_job("job-1");
    by.set_attempt(2);
    chunks_->put(by, hash, bytes, [&](const Status& status) { answers_.push_back(status.code()); });
  }
  void answer(uint64_t request, Code code) {
    proto::ChunkPutResult result;
    result.set_request(request);
    result.set_stored(code == Code::kOk);
    result.set_code(std::string(code_name(code)));
    chunks_->take(result);
  }
  // Runs what the store's threads hand back until `done`, for a few seconds at most.
  void run_until(const std::function<bool()>& done) {
    for (int i = 0; i < 2000 && !done(); ++i) io_.run_for(std::chrono::milliseconds(10));
    EXPECT_TRUE(done());
  }
  bool node_has(const std::string& bytes) const { return store_->has(sha256_hex(bytes)); }

  char folder_[32] = "/tmp/weft-chunks-XXXXXX";
  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> waiting_{
      io_.get_executor()};
  std::unique_ptr<ChunkStore> store_;
  std::vector<proto::NodeFrame> sent_;
  std::vector<Code> answers_;
  std::unique_ptr<ChunkExchange> chunks_;
};

TEST_F(ChunkExchangeTest, APutWaitsForBothStores) {
  put(sha256_hex("a"), "a");
  ASSERT_EQ(sent_.size(), 1u);  // the coordinator gets it while this node writes
  EXPECT_EQ(sent_[0].chunk_put().data(), "a");
  EXPECT_EQ(sent_[0].chunk_put().attempt().job(), "job-1");
  EXPECT_EQ(sent_[0].chunk_put().attempt().attempt(), 2);
  run_until([&] { return node_has("a"); });
  chunks_->send_again();
  ASSERT_EQ(sent_.size(), 2u);
  EXPECT_EQ(sent_[1].chunk_put().request(), sent_[0].chunk_put().request());
  EXPECT_TRUE(answers_.empty());
  answer(sent_[0].chunk_put().request(), Code::kOk);
  run_until([&] { return !answers_.empty(); });
  EXPECT_EQ(answers_, std::vector{Code::kOk});

  put(sha256_hex("b"), "b");
  answer(sent_[2].chunk_put().request(), Code::kOk);
  chunks_->send_again();
  EXPECT_EQ(sent_.size(), 3u);  // it has answered
  EXPECT_EQ(answers_.size(), 1u);
  run_until([&] { return answers_.size() == 2; });
  EXPECT_EQ(answers_[1], Code::kOk);
}

TEST_F(ChunkExchangeTest, WhatTheCoordinatorRefusesIsNotKept) {
  put(sha256_hex("a"), "other bytes");
  answer(sent_[0].chunk_put().request(), Code::kInvalidArgument);
  run_until([&] { return !answers_.empty(); });
  run_until([&] { return !node_has("a"); });
  put(sha256_hex("b"), "b");
  answer(sent_[1].chunk_put().request(), Code::kResourceExhausted);
  run_until([&] { return answers_.size() == 2; });
  EXPECT_EQ(answers_, (std::vector{Code::kInvalidArgument, Code::kResourceExhausted}));
  EXPECT_TRUE(node_has("b"));  // for the next try
}

TEST_F(ChunkExchangeTest, APutDoesNotWaitBeyondTheEnd) {
  put(sha256_hex("a"), "a");
  chunks_->stop();
  put(sha256_hex("b"), "b");
  EXPECT_EQ(answers_, (std::vector{Code::kCancelled, Code::kCancelled}));
}

TEST_F(ChunkExchangeTest, NobodyWaitsBeyondItsEnd) {  // io_ runs no more, as after the last signal
  const std::string here = sha256_hex("here");
  ASSERT_TRUE(store_->put(here, "here").ok());
  std::vector<std::future<Code>> waiting;
  const auto wait = [&](const std::string& hash) {
    waiting.push_back(std::async(
        std::launch::async, [this, hash] { return chunks_->get_blocking(hash).error().code(); }));
  };
  wait(here);
  wait(sha256_hex("elsewhere"));
  for (auto& each : waiting) {
    EXPECT_EQ(each.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  }
  chunks_->stop();
  wait(here);
  for (auto& each : waiting) {
    ASSERT_EQ(each.wait_for(std::chrono::seconds(20)), std::future_status::ready);
    EXPECT_EQ(each.get(), Code::kCancelled);
  }
}

// The bound is never reached: the disk is full before.
TEST_F(ChunkExchangeTest, OnAFullDiskOldChunksMakeRoom) {
  ASSERT_EQ(::geteuid(), 0U) << "mounting a small tmpfs needs root";
  chunks_.reset();
  store_.reset();
  ASSERT_EQ(::mount("tmpfs", folder_, "tmpfs", 0, "size=48m"), 0);
  store_ = open_chunk_store(folder_).value();
  chunks_ = std::make_unique<ChunkExchange>(
      io_, *store_, int64_t{1} << 40, [&](const proto::NodeFrame& frame) {
        const auto& put = frame.chunk_put();
        asio::post(io_, [this, request = put.request()] { answer(request, Code::kOk); });
        return true;
      });
  int refused = 0;
  for (int i = 0; i < 100; ++i) {
    std::string bytes(1 << 20, static_cast<char>(i));
    const std::string hash = sha256_hex(bytes);
    for (bool stored = false; !stored;) {  // as a rank does
      answers_.clear();
      put(hash, bytes);
      run_until([&] { return !answers_.empty(); });
      stored = answers_[0] == Code::kOk;
      if (stored) continue;
      ASSERT_EQ(answers_[0], Code::kResourceExhausted);
      ASSERT_LT(++refused, 100) << "of chunk " << i;
    }
    EXPECT_TRUE(store_->has(hash));
  }
  EXPECT_GT(refused, 0);
  chunks_.reset();
  store_.reset();
  ::umount(folder_);
}

}  // namespace
}  // namespace weft
