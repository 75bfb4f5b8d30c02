#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "coordinator/store/key_value.h"
#include "proto/base/hash.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

fs::path fresh_folder() { return fs::temp_directory_path() / ("weft-kv-" + random_hex(8)); }

WriteSet put(const std::string& key, const std::string& value) {
  WriteSet set;
  set.puts.emplace_back(key, value);
  return set;
}

TEST(RocksdbKeyValue, RefusesALogDamagedInItsMiddle) {
  const fs::path folder = fresh_folder();
  {
    auto bytes = open_rocksdb_key_value(folder.string()).value();
    for (int i = 0; i < 100; ++i) {
      ASSERT_TRUE(bytes->write(put("key" + std::to_string(i), std::string(200, 'v'))).ok());
    }
  }
  fs::path log;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".log" && entry.file_size() > 1000) log = entry.path();
  }
  ASSERT_FALSE(log.empty());
  {
    std::fstream file(log, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(fs::file_size(log) / 2));
    file.write("\x13\x37\x13\x37", 4);
  }
  const auto again = open_rocksdb_key_value(folder.string());
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), Code::kCorruption);
  fs::remove_all(folder);
}

TEST(RocksdbKeyValue, OpensAfterATornTail) {
  const fs::path folder = fresh_folder();
  {
    auto bytes = open_rocksdb_key_value(folder.string()).value();
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(bytes->write(put("k" + std::to_string(i), "v")).ok());
  }
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".log" && entry.file_size() > 20) {
      fs::resize_file(entry.path(), entry.file_size() - 3);
    }
  }
  auto bytes = open_rocksdb_key_value(folder.string()).value();
  EXPECT_TRUE(bytes->get("k8").value());
  fs::remove_all(folder);
}

TEST(RocksdbKeyValue, RangesKeysAndPutsOfOneBatch) {
  const fs::path folder = fresh_folder();
  for (auto& bytes : {std::shared_ptr<KeyValue>(make_memory_key_value()),
                      std::shared_ptr<KeyValue>(open_rocksdb_key_value(folder.string()).value())}) {
    for (const char* key : {"a1", "a2", "b1", "b2", "\xfe"}) {
      ASSERT_TRUE(bytes->write(put(key, key)).ok());
    }
    WriteSet set;
    set.removed_ranges.emplace_back("a", "b");
    set.removes.push_back("b1");
    set.puts.emplace_back("a2", "new");
    ASSERT_TRUE(bytes->write(set).ok());
    std::string seen;
    ASSERT_TRUE(bytes
                    ->scan("a", "z",
                           [&](auto key, auto value) {
                             seen += std::string(key) + "=" + std::string(value) + " ";
                             return true;
                           })
                    .ok());
    EXPECT_EQ(seen, "a2=new b2=b2 ");
    EXPECT_EQ(bytes->last("a", "b").value()->first, "a2");
    EXPECT_EQ(bytes->last("a", "\xff").value()->first, "\xfe");
    EXPECT_FALSE(bytes->last("c", "d").value());
  }
  fs::remove_all(folder);
}

// A tmpfs of 8 MiB: fill it, see the refusal, make room, go on without opening anew.
TEST(RocksdbKeyValue, AFullDiskLosesNothingAndRecovers) {
  const fs::path folder = fresh_folder();
  fs::create_directories(folder);
  if (mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=8m") != 0) {
    GTEST_SKIP() << "needs the right to mount a tmpfs: " << std::strerror(errno);
  }
  const fs::path ballast = folder / "ballast";
  std::ofstream(ballast) << std::string(4 << 20, 'x');
  std::unique_ptr<KeyValue> bytes = open_rocksdb_key_value((folder / "db").string()).value();
  std::vector<std::string> stored;
  Status status;
  for (int i = 0; i < 2000 && status.ok(); ++i) {
    const std::string key = "key" + std::to_string(i);
    status = bytes->write(put(key, random_hex(4096)));
    if (status.ok()) stored.push_back(key);
  }
  EXPECT_EQ(status.code(), Code::kResourceExhausted) << status.to_string();
  EXPECT_GT(stored.size(), 100u);
  const auto all_there = [&] {
    for (const auto& key : stored) {
      const auto value = bytes->get(key);
      if (!value) return value.error().to_string();
      if (!*value) return key + " is lost";
    }
    return std::string("all");
  };
  EXPECT_EQ(all_there(), "all");
  EXPECT_EQ(bytes->write(put("still", std::string(1 << 20, 'x'))).code(), Code::kResourceExhausted);
  EXPECT_EQ(all_there(), "all");
  fs::remove(ballast);
  status = bytes->write(put("room", "again"));
  EXPECT_TRUE(status.ok()) << status.to_string();
  stored.push_back("room");
  EXPECT_EQ(all_there(), "all");
  bytes.reset();
  bytes = open_rocksdb_key_value((folder / "db").string()).value();
  EXPECT_EQ(all_there(), "all");
  bytes.reset();
  umount(folder.c_str());
  fs::remove_all(folder);
}

}  // namespace
}  // namespace weft
