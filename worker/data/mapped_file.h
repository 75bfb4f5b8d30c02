// A file's bytes, mapped read-only.
// Thread safety: const calls from any thread. Ownership: owns the mapping.
#pragma once

#include <string>
#include <string_view>

#include "proto/base/status.h"

namespace weft::data {

class MappedFile {
 public:
  // The error does not name the file.
  static Result<MappedFile> open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();
  std::string_view bytes() const { return bytes_; }

 private:
  MappedFile() = default;
  std::string_view bytes_;
};

}  // namespace weft::data
