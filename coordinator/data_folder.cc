#include "coordinator/data_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "proto/base/hash.h"

namespace weft {
namespace {

Status system_error(Code code, const std::string& path, const std::string& what) {
  return {code, path + ": " + what + ": " + std::strerror(errno)};
}

// The whole file or none: another program never sees half a secret.
Status write_secret(const std::string& path, const std::string& text) {
  const std::string draft = path + "." + random_hex(4);
  const int file = ::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return system_error(Code::kUnavailable, path, "cannot be created");
  const bool written =
      ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
      ::fsync(file) == 0;
  ::close(file);
  const bool linked = written && (::link(draft.c_str(), path.c_str()) == 0 || errno == EEXIST);
  const Status status = linked ? Status() : system_error(Code::kUnavailable, path, "not written");
  ::unlink(draft.c_str());
  return status;
}

}  // namespace

Status check_own_folder(const std::string& folder) {
  if (::access((folder + "/cluster.json").c_str(), F_OK) != 0) return {};
  return Status::invalid("--data", folder,
                         "is the folder of a cluster that 'weft up' or 'weft join' started; start "
                         "it by these, or give a coordinator of its own another folder");
}

Result<FolderLock> FolderLock::take(const std::string& folder) {
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail(system_error(Code::kUnavailable, folder, "the data folder cannot be created")
                    .with_field("--data"));
  }
  const std::string path = folder + "/lock";
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) {
    return fail(system_error(Code::kUnavailable, folder, "the data folder cannot be written to")
                    .with_field("--data"));
  }
  if (::flock(file, LOCK_EX | LOCK_NB) != 0) {
    ::close(file);
    return fail(Status(Code::kUnavailable, folder + ": another coordinator uses this data folder")
                    .with_field("--data")
                    .with_rule("stop that one first, or give another folder"));
  }
  return FolderLock(file);
}

FolderLock::FolderLock(FolderLock&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {}

FolderLock::~FolderLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Result<std::string> read_or_make_secret(const std::string& path, int bytes) {
  if (::access(path.c_str(), F_OK) != 0) {
    WEFT_RETURN_IF_ERROR(write_secret(path, random_hex(static_cast<size_t>(bytes)) + "\n"));
  }
  std::ifstream file(path);
  if (!file) return fail(system_error(Code::kUnavailable, path, "cannot be read"));
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const size_t begin = text.find_first_not_of(" \t\r\n");
  const size_t end = text.find_last_not_of(" \t\r\n");
  text = begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
  if (text.size() < 16) {
    return fail(
        Status(Code::kInvalidArgument, path + ": too short for a secret")
            .with_rule("must have at least 16 characters; remove the file to have a new one "
                       "made"));
  }
  return text;
}

}  // namespace weft
