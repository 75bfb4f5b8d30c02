// What waits for a chunk when its agent ends.
#include "cluster/agent/chunk_exchange.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <future>

#include "proto/base/hash.h"

namespace weft {
namespace {

TEST(ChunkExchange, NobodyWaitsBeyondItsEnd) {
  char folder[] = "/tmp/weft-chunks-XXXXXX";
  ASSERT_NE(::mkdtemp(folder), nullptr);
  {
    const auto store = open_chunk_store(folder).value();
    const std::string here = sha256_hex("here");
    ASSERT_TRUE(store->put(here, "here").ok());
    boost::asio::io_context io;  // runs no more, as an agent's after its last signal
    ChunkExchange chunks(io, *store, 1 << 20, [](const proto::NodeFrame&) { return true; });
    std::vector<std::future<Code>> waiting;
    const auto wait = [&](const std::string& hash) {
      waiting.push_back(std::async(std::launch::async, [&chunks, hash] {
        return chunks.get_blocking(hash).error().code();
      }));
    };
    wait(here);
    wait(sha256_hex("elsewhere"));
    for (auto& each : waiting) {
      EXPECT_EQ(each.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
    }
    chunks.stop();
    wait(here);
    for (auto& each : waiting) {
      ASSERT_EQ(each.wait_for(std::chrono::seconds(20)), std::future_status::ready);
      EXPECT_EQ(each.get(), Code::kCancelled);
    }
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace weft
