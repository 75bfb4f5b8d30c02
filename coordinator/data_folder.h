// The coordinator's folder: its lock and its secrets.
// Thread safety: values. Ownership: a lock is held until it is destroyed.
#pragma once

#include <string>

#include "proto/base/status.h"

namespace weft {

class FolderLock {
 public:
  // Creates the folder (0700) where it is missing; its parent must be there.
  static Result<FolderLock> take(const std::string& folder);
  ~FolderLock();
  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&&) = delete;

 private:
  explicit FolderLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

// Not the data folder of a `weft up` or `weft join`, in which a coordinator would start without the
// jobs that the one of `weft up` keeps below it.
Status check_own_folder(const std::string& folder);

// The file's content without white space around it; where the file is missing it is made first,
// 0600, with `bytes` random bytes in hex. At least 16 characters.
Result<std::string> read_or_make_secret(const std::string& path, int bytes);

}  // namespace weft
