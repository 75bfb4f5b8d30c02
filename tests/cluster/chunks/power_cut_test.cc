// A power cut: what was not synced is gone, and so are files whose folder was not.
#include <gtest/gtest.h>
#include <rocksdb/env.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "cluster/chunks/chunk_store.h"
#include "proto/base/hash.h"
#include "tests/cluster/chunks/noise.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

// The system's files, as a disk holds them after cut(): each no longer than it was synced, and new
// names only where their folder was. After the cut every call fails.
class Disk final : public rocksdb::EnvWrapper {
 public:
  Disk() : EnvWrapper(rocksdb::Env::Default()) {}

  rocksdb::Status NewWritableFile(const std::string& path,
                                  std::unique_ptr<rocksdb::WritableFile>* file,
                                  const rocksdb::EnvOptions& options) override {
    const std::lock_guard lock(mutex_);
    if (cut_) return gone();
    names_[path] = std::make_shared<Extent>();
    unsynced_names_.insert(path);
    const rocksdb::Status status = target()->NewWritableFile(path, file, options);
    if (status.ok()) *file = std::make_unique<File>(*this, names_[path], std::move(*file));
    return status;
  }
  rocksdb::Status ReopenWritableFile(const std::string& path,
                                     std::unique_ptr<rocksdb::WritableFile>* file,
                                     const rocksdb::EnvOptions& options) override {
    const std::lock_guard lock(mutex_);
    if (cut_) return gone();
    const rocksdb::Status status = target()->ReopenWritableFile(path, file, options);
    if (status.ok()) *file = std::make_unique<File>(*this, names_.at(path), std::move(*file));
    return status;
  }
  rocksdb::Status LinkFile(const std::string& from, const std::string& to) override {
    const std::lock_guard lock(mutex_);
    if (cut_) return gone();
    names_[to] = names_.at(from);
    unsynced_names_.insert(to);
    return target()->LinkFile(from, to);
  }
  // In one step and durable, as a journal orders it behind its folder's sync.
  rocksdb::Status RenameFile(const std::string& from, const std::string& to) override {
    const std::lock_guard lock(mutex_);
    if (cut_) return gone();
    names_[to] = names_.at(from);
    names_.erase(from);
    unsynced_names_.erase(from);
    return target()->RenameFile(from, to);
  }
  rocksdb::Status DeleteFile(const std::string& path) override {
    const std::lock_guard lock(mutex_);
    if (cut_) return gone();
    names_.erase(path);
    unsynced_names_.erase(path);
    return target()->DeleteFile(path);
  }
  rocksdb::Status NewDirectory(const std::string& path,
                               std::unique_ptr<rocksdb::Directory>* folder) override {
    const rocksdb::Status status = target()->NewDirectory(path, folder);
    if (status.ok()) *folder = std::make_unique<Folder>(*this, path, std::move(*folder));
    return status;
  }

  void cut() {
    const std::lock_guard lock(mutex_);
    cut_ = true;
  }
  bool is_cut() {
    const std::lock_guard lock(mutex_);
    return cut_;
  }
  // What the next start finds; once the store is closed.
  void lose() {
    for (const auto& [path, extent] : names_) {
      if (unsynced_names_.contains(path)) {
        fs::remove(path);
      } else if (fs::exists(path)) {
        fs::resize_file(path, extent->synced);
      }
    }
  }

 private:
  struct Extent {
    uint64_t size = 0, synced = 0;
  };

  class File final : public rocksdb::WritableFileWrapper {
   public:
    File(Disk& disk, std::shared_ptr<Extent> extent, std::unique_ptr<rocksdb::WritableFile> file)
        : WritableFileWrapper(file.get()),
          disk_(disk),
          extent_(std::move(extent)),
          file_(std::move(file)) {}
    rocksdb::Status Append(const rocksdb::Slice& data) override {
      return disk_.unless_cut([&] {
        extent_->size += data.size();
        return file_->Append(data);
      });
    }
    rocksdb::Status Append(const rocksdb::Slice& data,
                           const rocksdb::DataVerificationInfo&) override {
      return Append(data);
    }
    rocksdb::Status Sync() override {
      return disk_.unless_cut([&] {
        extent_->synced = extent_->size;
        return rocksdb::Status();
      });
    }
    rocksdb::Status Fsync() override { return Sync(); }

   private:
    Disk& disk_;
    const std::shared_ptr<Extent> extent_;
    const std::unique_ptr<rocksdb::WritableFile> file_;
  };

  class Folder final : public rocksdb::DirectoryWrapper {
   public:
    Folder(Disk& disk, std::string path, std::unique_ptr<rocksdb::Directory> folder)
        : DirectoryWrapper(folder.get()),
          disk_(disk),
          path_(std::move(path)),
          folder_(std::move(folder)) {}
    rocksdb::Status Fsync() override {
      return disk_.unless_cut([&] {
        std::erase_if(disk_.unsynced_names_, [&](const std::string& name) {
          return fs::path(name).parent_path() == fs::path(path_ + "/").parent_path();
        });
        return rocksdb::Status();
      });
    }

   private:
    Disk& disk_;
    const std::string path_;
    const std::unique_ptr<rocksdb::Directory> folder_;
  };

  static rocksdb::Status gone() { return rocksdb::Status::IOError("no power"); }
  template <typename F>
  rocksdb::Status unless_cut(F&& call) {
    const std::lock_guard lock(mutex_);
    return cut_ ? gone() : call();
  }

  std::mutex mutex_;  // guards the rest
  bool cut_ = false;
  std::map<std::string, std::shared_ptr<Extent>> names_;
  std::set<std::string> unsynced_names_;
};

// Small ones and large ones.
std::string chunk(uint64_t number) { return noise(number % 3 == 0 ? 1000 : 300 << 10, number); }

TEST(ChunkStorePowerCut, NothingAcknowledgedIsLost) {
  const fs::path folder = fs::temp_directory_path() / ("weft-chunks-" + random_hex(6));
  Disk disk;
  std::set<uint64_t> acknowledged, removed;
  {
    const auto store = open_chunk_store(folder, &disk).value();
    std::mutex mutex;  // guards the sets and next
    uint64_t next = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        while (!disk.is_cut()) {
          uint64_t number = 0;
          {
            const std::lock_guard lock(mutex);
            number = next++;
          }
          if (!store->put(sha256_hex(chunk(number)), chunk(number)).ok()) return;
          const std::lock_guard lock(mutex);
          acknowledged.insert(number);
          if (acknowledged.size() == 40) disk.cut();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  disk.lose();
  EXPECT_GE(acknowledged.size(), 40U);
  {
    const auto store = open_chunk_store(folder);
    ASSERT_TRUE(store.has_value()) << store.error().to_string();
    for (uint64_t number : acknowledged) {
      const auto got = (*store)->get(sha256_hex(chunk(number)));
      ASSERT_TRUE(got.has_value()) << number << ": " << got.error().to_string();
      EXPECT_EQ(*got, chunk(number));
    }
    const Status listed = (*store)->for_each([&](const std::string& hash, int64_t size) {
      const auto got = (*store)->get(hash);
      ASSERT_TRUE(got.has_value()) << got.error().to_string();
      EXPECT_EQ(static_cast<int64_t>(got->size()), size);
    });
    EXPECT_TRUE(listed.ok());
  }
  fs::remove_all(folder);
}

}  // namespace
}  // namespace weft
