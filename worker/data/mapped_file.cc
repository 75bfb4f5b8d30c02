#include "worker/data/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace weft::data {

Result<MappedFile> MappedFile::open(const std::string& path) {
  // O_NONBLOCK: a pipe that nobody writes to is refused below, not waited for.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0)
    return fail(Code::kUnavailable, std::string("cannot be opened: ") + std::strerror(errno));
  struct stat status = {};
  MappedFile file;
  Status error;
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    error = Status(Code::kInvalidArgument, "is not a regular file");
  } else if (status.st_size > 0) {
    const auto size = static_cast<size_t>(status.st_size);
    void* start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (start == MAP_FAILED) {
      error = Status(Code::kResourceExhausted,
                     std::string("cannot be mapped: ") + std::strerror(errno));
    } else {
      ::madvise(start, size, MADV_SEQUENTIAL);
      file.bytes_ = {static_cast<const char*>(start), size};
    }
  }
  ::close(descriptor);
  if (!error.ok()) return fail(std::move(error));
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<char*>(bytes_.data()), bytes_.size());
}

}  // namespace weft::data
