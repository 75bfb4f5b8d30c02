#include "coordinator/cli/checkpoint_export.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "proto/base/disk.h"
#include "proto/base/hash.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

Status write_error(const std::string& path) {
  const int error = errno;
  const std::string what = fmt::format("cannot write {}: {}", path, std::strerror(error));
  if (error != ENOSPC && error != EDQUOT) return {Code::kUnavailable, what};
  return Status(Code::kResourceExhausted, what)
      .with_rule(room_at(fs::path(path).parent_path().string()) +
                 "; free some room and export again, or give --to on another disk");
}

bool plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

// Writes one file from the pieces that `fill` hands over.
Status write_file(
    const std::string& path, int64_t bytes,
    const std::function<Status(const std::function<Status(std::string_view)>&)>& fill) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file < 0) return write_error(path);
  int64_t written = 0;
  Status status = fill([&](std::string_view piece) -> Status {
    while (!piece.empty()) {
      const ssize_t n = ::write(file, piece.data(), piece.size());
      if (n < 0) return write_error(path);
      piece.remove_prefix(static_cast<size_t>(n));
      written += n;
    }
    return Status();
  });
  if (status.ok() && ::fsync(file) != 0) status = write_error(path);
  ::close(file);
  if (status.ok() && written != bytes) {
    status = Status(Code::kUnavailable,
                    fmt::format("{} has {} bytes instead of {}; try again", path, written, bytes));
  }
  return status;
}

Status check_target(const fs::path& folder) {
  std::error_code error;
  if (!fs::exists(folder, error)) return Status();
  if (!fs::is_directory(folder, error) || !fs::is_empty(folder, error)) {
    return Status::invalid("--to", folder.string(), "must be a new or an empty folder");
  }
  return Status();
}

// Below a folder: plain names, one in the other.
bool plain_path(const std::string& path) {
  const fs::path parts(path);
  return path.find("//") == std::string::npos && !path.ends_with('/') && !path.empty() &&
         std::ranges::all_of(parts, [](const fs::path& part) { return plain_name(part.string()); });
}

// "/folder/name", each part encoded.
std::string encoded_path(const fs::path& name) {
  std::string path;
  for (const fs::path& part : name) path += "/" + encoded(part.string());
  return path;
}

}  // namespace

bool names_checkpoint(const std::string& text) {
  const bool begins = text.starts_with("ckpt-") || text.starts_with("job-");
  return begins && text.find('/') == std::string::npos;
}

Result<std::string> checkpoint_of(ApiClient& client, const std::string& field,
                                  const std::string& id) {
  if (!id.starts_with("job-")) return id;
  proto::Job job;
  WEFT_RETURN_IF_ERROR(client.get("jobs/" + encoded(id), job));
  if (!job.best_checkpoint().empty()) return job.best_checkpoint();
  if (!job.checkpoint().empty()) return job.checkpoint();
  return fail(Status(Code::kFailedPrecondition, id + " has no checkpoint yet")
                  .with_field(field)
                  .with_value(id)
                  .with_rule("'weft checkpoint " + id + "' has a running job write one"));
}

Result<std::string> download_export(ApiClient& client, const std::string& checkpoint,
                                    const std::string& task, bool adapter,
                                    const std::string& folder,
                                    const std::function<void(int64_t, int64_t)>& progress) {
  const fs::path target = fs::absolute(folder).lexically_normal();
  const fs::path clean = target.has_filename() ? target : target.parent_path();
  WEFT_RETURN_IF_ERROR(check_target(clean));
  const std::string base = "checkpoints/" + encoded(checkpoint) + "/files";
  std::string query = adapter ? "?adapter=true" : "";
  if (!task.empty()) query += (adapter ? "&task=" : "?task=") + encoded(task);
  proto::ExportFileList list;
  WEFT_RETURN_IF_ERROR(client.get(base + query, list));
  std::error_code error;
  fs::create_directories(clean.parent_path(), error);
  const fs::path part =
      clean.parent_path() / fmt::format(".{}.part-{}", clean.filename().string(), random_hex(4));
  if (!fs::create_directory(part, error)) {
    if (error == std::errc::no_space_on_device) return fail(write_error(part.string()));
    return fail(Status::invalid("--to", clean.string(), "must be writable: " + error.message()));
  }
  int64_t whole = 0, done = 0;
  for (const proto::ExportFile& file : list.files()) whole += file.size();
  Status status;
  for (const proto::ExportFile& file : list.files()) {
    if (!status.ok()) break;
    if (!plain_path(file.name())) {
      status = Status(Code::kCorruption, "the server named a file outside of the folder");
      break;
    }
    const fs::path written = part / file.name();
    fs::create_directories(written.parent_path(), error);
    status = write_file(written.string(), file.size(), [&](const auto& sink) {
      return client.download(base + encoded_path(file.name()) + query, [&](std::string_view piece) {
        done += static_cast<int64_t>(piece.size());
        if (progress) progress(done, whole);
        return sink(piece);
      });
    });
  }
  if (status.ok()) {
    fs::remove(clean, error);  // an empty folder that was there
    if (::rename(part.c_str(), clean.c_str()) != 0) status = write_error(clean.string());
  }
  if (!status.ok()) {
    fs::remove_all(part, error);
    return fail(status);
  }
  return list.task();
}

}  // namespace weft::cli
