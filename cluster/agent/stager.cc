#include "cluster/agent/stager.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "proto/base/hash.h"
#include "proto/json/file_path.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

Status failed(const std::string& what) {
  return Status(errno == ENOSPC ? Code::kResourceExhausted : Code::kUnavailable,
                what + ": " + std::strerror(errno));
}

Status write_all(int fd, const std::string& bytes, const std::string& path) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t wrote = ::write(fd, bytes.data() + done, bytes.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return failed(path);
    done += static_cast<size_t>(wrote);
  }
  return {};
}

Status write_chunks(int fd, const proto::ObjectFile& file, const FetchChunk& fetch,
                    const std::atomic<bool>& cancelled) {
  int64_t size = 0;
  for (const auto& chunk : file.chunks()) {
    if (cancelled) return Status(Code::kCancelled, "the attempt was stopped");
    WEFT_ASSIGN_OR_RETURN(const std::string bytes, fetch(chunk.hash()));
    if (sha256_hex(bytes) != chunk.hash() || static_cast<int64_t>(bytes.size()) != chunk.size()) {
      return Status(Code::kCorruption, "chunk " + chunk.hash() + " has other bytes");
    }
    size += chunk.size();
    WEFT_RETURN_IF_ERROR(write_all(fd, bytes, file.path()));
  }
  if (size != file.size()) {
    return Status::invalid("size", std::to_string(file.size()), "must be the sum of its chunks");
  }
  return ::fsync(fd) == 0 ? Status() : failed(file.path());
}

Status write_one(const std::string& folder, const proto::ObjectFile& file, const FetchChunk& fetch,
                 const std::atomic<bool>& cancelled) {
  WEFT_RETURN_IF_ERROR(check_file_path(file.path()));
  const fs::path path = fs::path(folder) / file.path();
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  if (error) return Status(Code::kUnavailable, file.path() + ": " + error.message());
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
  if (fd < 0) return failed(file.path());
  Status status = write_chunks(fd, file, fetch, cancelled);
  ::close(fd);
  return status.ok() ? status : status.with_prefix(file.path() + ": ");
}

Status stage_one(const proto::ObjectManifest& object, const std::string& objects_folder,
                 const FetchChunk& fetch, const std::atomic<bool>& cancelled) {
  WEFT_RETURN_IF_ERROR(check_file_path(object.id()));
  if (object.id().find('/') != std::string::npos) {
    return Status::invalid("id", object.id(), "must be a plain name");
  }
  const std::string target = objects_folder + "/" + object.id();
  if (::utimensat(AT_FDCWD, target.c_str(), nullptr, 0) == 0) return {};  // used: stays longer
  const std::string building = objects_folder + "/.building-" + object.id() + "-" + random_hex(4);
  if (::mkdir(building.c_str(), 0755) != 0) return failed(building);
  Status status;
  for (const auto& file : object.files()) {
    if (status.ok()) status = write_one(building, file, fetch, cancelled);
  }
  std::error_code error;
  if (status.ok() && ::rename(building.c_str(), target.c_str()) != 0 &&
      ::access(target.c_str(), F_OK) != 0) {  // another attempt may have been first
    status = failed(target);
  }
  fs::remove_all(building, error);
  return status;
}

}  // namespace

Status stage_objects(const proto::LaunchRecord& record, const std::string& objects_folder,
                     const FetchChunk& fetch, const std::atomic<bool>& cancelled) {
  for (const auto& object : record.objects()) {
    const Status status = stage_one(object, objects_folder, fetch, cancelled);
    if (!status.ok()) return status.with_prefix("staging object " + object.id() + ": ");
  }
  return {};
}

}  // namespace weft
