#include "cluster/chunks/rocksdb_base.h"

#include <fcntl.h>
#include <rocksdb/env.h>
#include <rocksdb/listener.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <filesystem>
#include <memory>

namespace weft {
namespace {

// Bytes. A table of them and the next log fit into kept_free().
constexpr size_t kWriteBuffer = 16 << 20;

uintmax_t bytes_of(const std::string& folder, bool (*wanted)(const std::filesystem::path&)) {
  uintmax_t bytes = 0;
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(folder, error)) {
    const uintmax_t size = wanted(file.path()) ? file.file_size(error) : 0;
    if (!error) bytes += size;
  }
  return bytes;
}

bool is_log(const std::filesystem::path& path) { return path.extension() == ".log"; }
bool is_manifest(const std::filesystem::path& path) {
  return path.filename().string().starts_with("MANIFEST-");
}

class NoLog final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}
};

class Recovery final : public rocksdb::EventListener {
 public:
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason reason, rocksdb::Status /*error*/,
                            bool* by_itself) override {
    *by_itself = reason == rocksdb::BackgroundErrorReason::kCompaction;
  }
};

}  // namespace

rocksdb::Options rocksdb_base_options() {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.avoid_flush_during_recovery = true;
  options.write_buffer_size = kWriteBuffer;
  options.manifest_preallocation_size = 64 << 10;
  options.listeners.push_back(std::make_shared<Recovery>());
  options.info_log = std::make_shared<NoLog>();
  return options;
}

bool lacks_room(const rocksdb::Status& status) {
  return status.IsNoSpace() ||
         (status.IsIOError() && status.ToString().find(std::strerror(EDQUOT)) != std::string::npos);
}

bool has_room_to_open(const std::string& folder) {
  const uintmax_t logs = bytes_of(folder, is_log);
  const uintmax_t tables = logs > kWriteBuffer / 2 ? logs : 0;  // in memory they take more
  const uintmax_t bytes = (2 << 20) + bytes_of(folder, is_manifest) + tables;
  const std::string path = folder + ".room";
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  const int failed = file < 0 ? errno : ::posix_fallocate(file, 0, static_cast<off_t>(bytes));
  if (file >= 0) ::close(file);
  ::unlink(path.c_str());
  return failed != ENOSPC && failed != EDQUOT;
}

}  // namespace weft
