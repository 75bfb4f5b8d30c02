#include "cluster/chunks/chunk_store.h"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "proto/base/hash.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

class ChunkStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("weft-chunks-" + random_hex(6));
    fs::create_directories(folder_);
  }
  void TearDown() override {
    if (mounted_) umount(folder_.c_str());
    fs::remove_all(folder_);
  }
  std::unique_ptr<ChunkStore> open() {
    auto store = open_chunk_store((folder_ / "chunks").string());
    EXPECT_TRUE(store.has_value()) << store.error().to_string();
    return std::move(*store);
  }
  fs::path folder_;
  bool mounted_ = false;
};

// Bytes that no compression helps with.
std::string noise(size_t size, uint64_t seed) {
  std::string bytes(size, '\0');
  uint64_t state = seed * 2 + 1;
  for (char& byte : bytes) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    byte = static_cast<char>(state >> 56);
  }
  return bytes;
}

TEST_F(ChunkStoreTest, KeepsSmallAndLargeOverARestart) {
  std::vector<std::string> chunks = {"", "a", noise(1000, 1), noise(300 << 10, 2),
                                     noise(4 << 20, 3)};
  {
    const auto store = open();
    for (const std::string& chunk : chunks) {
      ASSERT_TRUE(store->put(sha256_hex(chunk), chunk).ok());
      ASSERT_TRUE(store->put(sha256_hex(chunk), chunk).ok());  // again
    }
  }
  const auto store = open();
  std::set<std::string> seen;
  ASSERT_TRUE(store->for_each([&](const std::string& hash, int64_t) { seen.insert(hash); }).ok());
  EXPECT_EQ(seen.size(), chunks.size());
  for (const std::string& chunk : chunks) {
    const auto got = store->get(sha256_hex(chunk));
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(*got, chunk);
  }
  ASSERT_TRUE(store->remove({sha256_hex(chunks[4]), sha256_hex(chunks[1])}).ok());
  EXPECT_FALSE(store->has(sha256_hex(chunks[4])));
  EXPECT_EQ(store->get(sha256_hex(chunks[1])).error().code(), Code::kNotFound);
  EXPECT_TRUE(store->has(sha256_hex(chunks[3])));
}

TEST_F(ChunkStoreTest, RefusesWhatDoesNotMatch) {
  const auto store = open();
  EXPECT_EQ(store->put(sha256_hex("a"), "b").code(), Code::kInvalidArgument);
  EXPECT_EQ(store->put("../etc", "b").code(), Code::kInvalidArgument);
  const std::string large(static_cast<size_t>(kChunkBytesMax) + 1, 'x');
  EXPECT_EQ(store->put(sha256_hex(large), large).code(), Code::kInvalidArgument);
}

TEST_F(ChunkStoreTest, ManyThreadsAtOnce) {
  const auto store = open();
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 20; ++i) {
        const std::string chunk = noise(i % 5 == 0 ? 300 << 10 : 2000, t * 7 % 3 + i * 10);
        EXPECT_TRUE(store->put(sha256_hex(chunk), chunk).ok());
        EXPECT_TRUE(store->get(sha256_hex(chunk)).has_value());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(ChunkStoreTest, DamagedBytesAreNeverGiven) {
  const std::string chunk = noise(1 << 20, 9);
  const std::string hash = sha256_hex(chunk);
  { ASSERT_TRUE(open()->put(hash, chunk).ok()); }
  for (const auto& file : fs::directory_iterator(folder_ / "chunks" / "db")) {
    if (file.path().extension() != ".sst") continue;
    std::fstream bytes(file.path(), std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekp(500 << 10);
    bytes.write("damage", 6);
  }
  auto store = open_chunk_store((folder_ / "chunks").string());
  ASSERT_TRUE(store.has_value());
  const auto got = (*store)->get(hash);
  ASSERT_FALSE(got.has_value());
  EXPECT_EQ(got.error().code(), Code::kCorruption);
}

TEST_F(ChunkStoreTest, AFullDiskLosesNothingAndRecovers) {
  ASSERT_EQ(geteuid(), 0U) << "mounting a small tmpfs needs root";
  ASSERT_EQ(mount("tmpfs", folder_.c_str(), "tmpfs", 0, "size=48m"), 0);
  mounted_ = true;
  const auto store = open();
  std::vector<std::string> kept;
  Status status;
  for (uint64_t i = 0; i < 100 && status.ok(); ++i) {
    const std::string chunk = noise(i % 2 == 0 ? 1 << 20 : 100 << 10, i);
    status = store->put(sha256_hex(chunk), chunk);
    if (status.ok()) kept.push_back(chunk);
  }
  ASSERT_EQ(status.code(), Code::kResourceExhausted) << status.to_string();
  EXPECT_GT(kept.size(), 5U);
  for (const std::string& chunk : kept) {
    const auto got = store->get(sha256_hex(chunk));
    ASSERT_TRUE(got.has_value()) << got.error().to_string();
    EXPECT_EQ(*got, chunk);
  }
  ASSERT_EQ(mount("tmpfs", folder_.c_str(), "tmpfs", MS_REMOUNT, "size=96m"), 0);
  for (uint64_t i = 200; i < 204; ++i) {
    const std::string chunk = noise(i % 2 == 0 ? 1 << 20 : 100 << 10, i);
    const Status again = store->put(sha256_hex(chunk), chunk);
    ASSERT_TRUE(again.ok()) << again.to_string();
    EXPECT_EQ(*store->get(sha256_hex(chunk)), chunk);
  }
}

}  // namespace
}  // namespace weft
