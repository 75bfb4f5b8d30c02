#include "coordinator/launcher/data_plane.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "proto/base/hash.h"
#include "tests/coordinator/launcher/fake_agent.h"
#include "tests/coordinator/memory_chunks.h"

namespace weft {
namespace {

// Closed, as a store is for a moment after a full disk.
class ClosingChunks final : public MemoryChunks {
 public:
  Result<std::string> get(const std::string& hash) const override {
    ++reads;
    if (closed) return fail(Code::kResourceExhausted, "closed after a full disk");
    return MemoryChunks::get(hash);
  }
  Status room() override {
    if (opens) closed = false;
    return MemoryChunks::room();
  }
  std::atomic<bool> closed = false, opens = false;  // whether asking for room opens it
  mutable std::atomic<int> reads = 0;
};

class DataPlaneTest : public testing::Test {
 protected:
  static proto::NodeFrame get(const std::string& hash) {
    proto::NodeFrame frame;
    frame.mutable_chunk_get()->set_request(7);
    frame.mutable_chunk_get()->set_hash(hash);
    return frame;
  }
  std::vector<proto::NodeFrame> answers() {
    for (int i = 0; i < 500; ++i) {
      auto found = channel_->take(proto::NodeFrame::kChunkData);
      if (!found.empty()) return found;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return {};
  }

  SimulatedClock clock_{1000};
  ClosingChunks chunks_;
  std::unique_ptr<JobStore> store_ = JobStore::open(make_memory_key_value(), clock_).value();
  Content content_{chunks_, *store_, clock_};
  std::shared_ptr<ScriptedChannel> channel_ = std::make_shared<ScriptedChannel>();
};

TEST_F(DataPlaneTest, AReaderOfAClosedStoreWaitsUntilItIsOpen) {
  const std::string hash = sha256_hex("text");
  ASSERT_TRUE(content_.put_chunk(hash, "text").ok());
  DataPlane plane(*store_, content_, 1);
  chunks_.closed = true;
  plane.post(channel_, get(hash));
  while (chunks_.reads == 0) std::this_thread::yield();
  EXPECT_TRUE(channel_->take(proto::NodeFrame::kChunkData).empty());
  chunks_.opens = true;  // nobody writes: the reader itself has it opened
  const auto found = answers();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].chunk_data().request(), 7);
  EXPECT_EQ(found[0].chunk_data().data(), "text");
}

TEST_F(DataPlaneTest, AChunkThatIsNotThereIsToldAtOnce) {
  DataPlane plane(*store_, content_, 1);
  plane.post(channel_, get(sha256_hex("other")));
  const auto found = answers();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_FALSE(found[0].chunk_data().found());
  EXPECT_EQ(chunks_.reads, 1);
}

TEST_F(DataPlaneTest, EndsWhileAReaderWaits) {
  chunks_.closed = true;
  DataPlane plane(*store_, content_, 2);
  plane.post(channel_, get(sha256_hex("text")));
  while (chunks_.reads == 0) std::this_thread::yield();
}

}  // namespace
}  // namespace weft
