// A chunk store in a folder of its own, which may be a small disk.
#pragma once

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "cluster/chunks/chunk_store.h"
#include "proto/base/hash.h"

namespace weft {

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
  size_t tables() const {
    size_t count = 0;
    for (const auto& file : fs::directory_iterator(folder_ / "chunks" / "db")) {
      if (file.path().extension() == ".sst") ++count;
    }
    return count;
  }
  void mount_disk(const char* size) {
    ASSERT_EQ(geteuid(), 0U) << "mounting a small tmpfs needs root";
    ASSERT_EQ(mount("tmpfs", folder_.c_str(), "tmpfs", 0, size), 0);
    mounted_ = true;
  }
  static void fill(const fs::path& path) {  // until the disk holds no further byte
    std::ofstream file(path, std::ios::binary | std::ios::app);
    for (const size_t size : {size_t{1} << 20, size_t{1} << 12, size_t{1}}) {
      const std::string bytes(size, 'x');
      while (file.write(bytes.data(), static_cast<std::streamsize>(size)).flush()) {
      }
      file.clear();
    }
  }
  fs::path folder_;
  bool mounted_ = false;
};

}  // namespace weft
