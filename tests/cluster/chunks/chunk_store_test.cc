#include "cluster/chunks/chunk_store.h"

#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "proto/base/hash.h"
#include "tests/cluster/chunks/chunk_store_fixture.h"
#include "tests/cluster/chunks/noise.h"

namespace weft {
namespace {

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

TEST_F(ChunkStoreTest, RemovedChunksGiveTheirRoomBack) {
  const auto store = open();
  std::vector<std::string> hashes;
  for (uint64_t i = 0; i < 8; ++i) {
    const std::string chunk = noise(2 << 20, i);
    hashes.push_back(sha256_hex(chunk));
    ASSERT_TRUE(store->put(hashes.back(), chunk).ok());
  }
  EXPECT_GT(store->bytes(), 16 << 20);
  const std::string kept = hashes.back();
  hashes.pop_back();
  ASSERT_TRUE(store->remove(hashes).ok());
  EXPECT_LT(store->bytes(), 4 << 20);
  EXPECT_EQ(*store->get(kept), noise(2 << 20, 7));
  ASSERT_TRUE(store->put(hashes[0], noise(2 << 20, 0)).ok());  // again
  EXPECT_EQ(*store->get(hashes[0]), noise(2 << 20, 0));
}

TEST_F(ChunkStoreTest, ReadsLargeChunksOfOlderVersions) {
  const std::string chunk = noise(1 << 20, 4);
  const std::string hash = sha256_hex(chunk);
  {
    rocksdb::Options options;
    options.create_if_missing = true;
    rocksdb::DB* db = nullptr;
    fs::create_directories(folder_ / "chunks");
    ASSERT_TRUE(rocksdb::DB::Open(options, folder_ / "chunks" / "db", &db).ok());
    const std::unique_ptr<rocksdb::DB> owned(db);
    ASSERT_TRUE(db->Put({}, hash, chunk).ok());
    ASSERT_TRUE(db->Flush({}).ok());
  }
  const auto store = open();
  EXPECT_EQ(store->size(hash), 1 << 20);
  EXPECT_EQ(*store->get(hash), chunk);
  ASSERT_TRUE(store->put(hash, chunk).ok());
  std::vector<std::string> seen;
  ASSERT_TRUE(
      store->for_each([&](const std::string& each, int64_t) { seen.push_back(each); }).ok());
  EXPECT_EQ(seen, std::vector{hash});
  ASSERT_TRUE(store->remove({hash}).ok());
  EXPECT_FALSE(store->has(hash));
}

// The child tells what was acknowledged and is killed in the middle of the next ones.
TEST_F(ChunkStoreTest, AKillLosesNothingAcknowledgedAndLeavesNoHalves) {
  const auto chunk = [](uint64_t i) { return noise(i % 3 == 0 ? 1000 : 300 << 10, i); };
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto store = open_chunk_store((folder_ / "chunks").string()).value();
    std::atomic<uint64_t> next{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        while (true) {
          const uint64_t i = next++;
          if (!store->put(sha256_hex(chunk(i)), chunk(i)).ok()) _exit(1);
          if (write(ends[1], &i, sizeof i) != sizeof i) _exit(1);
        }
      });
    }
    pause();
  }
  close(ends[1]);
  std::set<uint64_t> acknowledged;
  for (uint64_t i = 0; read(ends[0], &i, sizeof i) == sizeof i;) {
    acknowledged.insert(i);
    if (acknowledged.size() == 60) kill(child, SIGKILL);
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_EQ(WTERMSIG(status), SIGKILL);
  EXPECT_GE(acknowledged.size(), 60U);

  const auto store = open();
  for (uint64_t i : acknowledged) {
    const auto got = store->get(sha256_hex(chunk(i)));
    ASSERT_TRUE(got.has_value()) << i << ": " << got.error().to_string();
    EXPECT_EQ(*got, chunk(i));
  }
  size_t large = 0;
  ASSERT_TRUE(store
                  ->for_each([&](const std::string& hash, int64_t size) {
                    EXPECT_EQ(static_cast<int64_t>(store->get(hash).value().size()), size);
                    if (size > 1000) ++large;
                  })
                  .ok());
  EXPECT_EQ(tables(), large);
  EXPECT_TRUE(fs::is_empty(folder_ / "chunks" / "staging"));
}

// Pieces without a size, as a crash between the two leaves them.
TEST_F(ChunkStoreTest, HalvesOfACrashGiveTheirRoomBack) {
  const std::string lost = noise(1 << 20, 6), kept = noise(1 << 20, 7);
  {
    const auto store = open();
    ASSERT_TRUE(store->put(sha256_hex(lost), lost).ok());
    ASSERT_TRUE(store->put(sha256_hex(kept), kept).ok());
  }
  {
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const char* name : {"default", "pieces", "sizes"})
      families.emplace_back(name, rocksdb::Options());
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open({}, folder_ / "chunks" / "db", families, &handles, &db).ok());
    const std::unique_ptr<rocksdb::DB> owned(db);
    EXPECT_TRUE(db->Delete({}, handles[2], sha256_hex(lost)).ok());
    for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
  }
  const size_t before = tables();
  const auto store = open();
  EXPECT_EQ(tables(), before - 1);
  EXPECT_FALSE(store->has(sha256_hex(lost)));
  EXPECT_EQ(store->get(sha256_hex(lost)).error().code(), Code::kNotFound);
  EXPECT_EQ(*store->get(sha256_hex(kept)), kept);
  ASSERT_TRUE(store->put(sha256_hex(lost), lost).ok());
  EXPECT_EQ(*store->get(sha256_hex(lost)), lost);
}

TEST_F(ChunkStoreTest, WhatIsHereCanBeReadWhileItIsRemovedAndPutAgain) {
  const auto store = open();
  const std::string chunk = noise(300 << 10, 5);
  const std::string hash = sha256_hex(chunk);
  std::atomic<bool> stop{false};
  std::thread remover([&] {
    while (!stop) EXPECT_TRUE(store->remove({hash}).ok());
  });
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(store->put(hash, chunk).ok());
  stop = true;
  remover.join();
  EXPECT_EQ(store->has(hash), store->get(hash).has_value());
  ASSERT_TRUE(store->put(hash, chunk).ok());
  EXPECT_EQ(*store->get(hash), chunk);
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

  ASSERT_TRUE((*store)->put_unchecked(sha256_hex("a"), "other").ok());
  EXPECT_EQ((*store)->get(sha256_hex("a")).error().code(), Code::kCorruption);
  EXPECT_EQ((*store)->put_unchecked("../etc", "b").field(), "hash");
}

}  // namespace
}  // namespace weft
