// A chunk store on a disk that is full, or becomes it.
#include <gtest/gtest.h>
#include <rocksdb/env.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <thread>

#include "cluster/chunks/chunk_store.h"
#include "proto/base/disk.h"
#include "proto/base/hash.h"
#include "tests/cluster/chunks/chunk_store_fixture.h"
#include "tests/cluster/chunks/noise.h"

namespace weft {
namespace {

class FullDiskTest : public ChunkStoreTest {};

TEST_F(FullDiskTest, AFullDiskLosesNothingAndRecovers) {
  mount_disk("size=48m");
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

TEST_F(FullDiskTest, OnAFullDiskWhatIsRemovedMakesRoom) {
  mount_disk("size=48m");
  const auto store = open();
  std::vector<std::string> hashes;
  uint64_t seed = 0;
  for (int round = 0; round < 5; ++round) {
    Status status;
    while (status.ok() && hashes.size() < 100) {
      const std::string chunk = noise(1 << 20, ++seed);
      status = store->put(sha256_hex(chunk), chunk);
      if (status.ok()) hashes.push_back(sha256_hex(chunk));
    }
    ASSERT_EQ(status.code(), Code::kResourceExhausted) << status.to_string();
    ASSERT_GT(hashes.size(), 8U);
    EXPECT_TRUE(store->full());
    const std::vector<std::string> some(hashes.begin(), hashes.begin() + 4);
    const Status removed = store->remove(some);
    ASSERT_TRUE(removed.ok()) << removed.to_string();
    hashes.erase(hashes.begin(), hashes.begin() + 4);
    const std::string chunk = noise(1 << 20, ++seed);
    const Status again = store->put(sha256_hex(chunk), chunk);
    ASSERT_TRUE(again.ok()) << again.to_string();
    hashes.push_back(sha256_hex(chunk));
    EXPECT_FALSE(store->full());
  }
  for (const std::string& hash : hashes) EXPECT_TRUE(store->get(hash).has_value());
}

// With it a removal, and the commit that asks for it, go on.
TEST_F(FullDiskTest, ChunksLeaveSomeRoom) {
  mount_disk("size=160m");
  const auto store = open();
  Status status;
  for (uint64_t seed = 0; seed < 100 && status.ok(); ++seed) {
    const std::string chunk = noise(4 << 20, seed);
    status = store->put(sha256_hex(chunk), chunk);
  }
  EXPECT_EQ(status.code(), Code::kResourceExhausted) << status.to_string();
  const auto available = static_cast<int64_t>(fs::space(folder_).available);
  EXPECT_EQ(kept_free(int64_t{160} << 20), int64_t{20} << 20);
  EXPECT_GT(available, int64_t{19} << 20) << "its log and manifest count, too";
  EXPECT_LT(available, int64_t{25} << 20);
  EXPECT_EQ(kept_free(int64_t{1} << 40), int64_t{64} << 20);
}

// Others take every byte. To open it anew takes more than comes back at first, as its log would
// become a table: it is read meanwhile.
TEST_F(FullDiskTest, IsReadWhereItCannotBeOpenedAnew) {
  mount_disk("size=96m");
  const auto store = open();
  std::vector<std::string> hashes;
  for (uint64_t seed = 0; seed < 78; ++seed) {
    const std::string chunk = noise(200'000, seed);
    ASSERT_TRUE(store->put(sha256_hex(chunk), chunk).ok());
    hashes.push_back(sha256_hex(chunk));
  }
  const auto all_there = [&] {
    return std::all_of(hashes.begin(), hashes.end(),
                       [&](const std::string& hash) { return store->get(hash).has_value(); });
  };
  fill(folder_ / "others");
  Status status;
  for (int i = 0; i < 100'000 && status.ok(); ++i) status = store->remove({sha256_hex("absent")});
  ASSERT_EQ(status.code(), Code::kResourceExhausted) << status.to_string();
  EXPECT_TRUE(store->full());
  EXPECT_TRUE(all_there());
  const auto free_up = [&](uintmax_t bytes) {
    fs::resize_file(folder_ / "others", fs::file_size(folder_ / "others") - bytes);
  };
  free_up(6 << 20);
  EXPECT_EQ(store->remove({sha256_hex("absent")}).code(), Code::kResourceExhausted);
  EXPECT_EQ(store->room().code(), Code::kResourceExhausted);
  EXPECT_TRUE(all_there());
  free_up(16 << 20);
  status = store->remove({hashes.back()});
  EXPECT_TRUE(status.ok()) << status.to_string();
  hashes.pop_back();
  EXPECT_TRUE(all_there());
  free_up(8 << 20);
  EXPECT_TRUE(store->room().ok());
  EXPECT_FALSE(store->full());
}

// A disk that takes not even a new log.
class NoRoom final : public rocksdb::EnvWrapper {
 public:
  explicit NoRoom(rocksdb::Status how) : EnvWrapper(Env::Default()), refusal(std::move(how)) {}
  const char* Name() const override { return "no room"; }
  rocksdb::Status NewWritableFile(const std::string& name,
                                  std::unique_ptr<rocksdb::WritableFile>* file,
                                  const rocksdb::EnvOptions& options) override {
    if (full) return refusal;
    const rocksdb::Status status = target()->NewWritableFile(name, file, options);
    if (status.ok()) *file = std::make_unique<File>(std::move(*file), *this);
    return status;
  }
  rocksdb::Status ReuseWritableFile(const std::string& name, const std::string& old,
                                    std::unique_ptr<rocksdb::WritableFile>* file,
                                    const rocksdb::EnvOptions& options) override {
    if (full) return refusal;
    return target()->ReuseWritableFile(name, old, file, options);
  }
  std::atomic<bool> full{false};
  const rocksdb::Status refusal;

 private:
  struct File : rocksdb::WritableFileWrapper {
    File(std::unique_ptr<rocksdb::WritableFile> file, const NoRoom& on)
        : WritableFileWrapper(file.get()), owned(std::move(file)), disk(on) {}
    rocksdb::Status Append(const rocksdb::Slice& data) override {
      return disk.full ? disk.refusal : owned->Append(data);
    }
    rocksdb::Status Append(const rocksdb::Slice& data,
                           const rocksdb::DataVerificationInfo& info) override {
      return disk.full ? disk.refusal : owned->Append(data, info);
    }
    std::unique_ptr<rocksdb::WritableFile> owned;
    const NoRoom& disk;
  };
};

const rocksdb::Status kRefusals[] = {
    rocksdb::Status::NoSpace("none"),
    rocksdb::Status::IOError("while appending", std::strerror(EDQUOT)),
};

// RocksDB would go on with the log that has failed, and abort.
TEST_F(FullDiskTest, TheFirstRecordOfALogMayFindNoRoom) {
  uint64_t seed = 0;
  for (const rocksdb::Status& refusal : kRefusals) {
    NoRoom disk(refusal);
    const auto store = open_chunk_store((folder_ / "chunks").string(), &disk).value();
    for (int i = 0; i < 3; ++i) {
      const std::string chunk = noise(1000, ++seed);
      disk.full = true;
      EXPECT_EQ(store->put(sha256_hex(chunk), chunk).code(), Code::kResourceExhausted);
      EXPECT_TRUE(store->full());
      disk.full = false;
      EXPECT_TRUE(store->remove({sha256_hex("absent")}).ok());
      const Status status = store->put(sha256_hex(chunk), chunk);
      EXPECT_TRUE(status.ok()) << status.to_string();
      EXPECT_FALSE(store->full());
    }
  }
}

TEST_F(FullDiskTest, AStoreThatCouldNotBeOpenedAnewIsOpenedLater) {
  for (const rocksdb::Status& refusal : kRefusals) {
    NoRoom disk(refusal);
    const auto store = open_chunk_store((folder_ / "chunks").string(), &disk).value();
    const std::string kept = sha256_hex("kept"), goes = sha256_hex("goes");
    ASSERT_TRUE(store->put(kept, "kept").ok());
    ASSERT_TRUE(store->put(goes, "goes").ok());
    disk.full = true;
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(store->remove({goes}).code(), Code::kResourceExhausted);
      EXPECT_EQ(store->put(sha256_hex("new"), "new").code(), Code::kResourceExhausted);
    }
    EXPECT_TRUE(store->full());
    disk.full = false;
    EXPECT_TRUE(store->room().ok());
    EXPECT_FALSE(store->full());
    EXPECT_TRUE(store->has(kept));
    EXPECT_TRUE(store->remove({goes}).ok());
    EXPECT_FALSE(store->has(goes));
    EXPECT_TRUE(store->put(sha256_hex("new"), "new").ok());
    EXPECT_TRUE(store->remove({kept, sha256_hex("new")}).ok());
  }
}

}  // namespace
}  // namespace weft
