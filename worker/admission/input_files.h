// The files of a job's input, wherever they are: a folder of this machine, or an uploaded object
// whose chunks a coordinator holds.
//
// Thread safety: const calls from any thread. Ownership: none kept beyond what an implementation
// says.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "proto/base/status.h"

namespace weft {

class InputFiles {
 public:
  virtual ~InputFiles() = default;
  virtual std::vector<std::string> names() const = 0;  // relative to the input, sorted
  virtual std::optional<int64_t> size(const std::string& name) const = 0;  // nothing: no such file
  // Exactly [offset, offset + length), which must lie inside the file.
  virtual Result<std::string> read(const std::string& name, int64_t offset,
                                   int64_t length) const = 0;
};

// The whole of a file of at most `most` bytes; kNotFound where there is none.
Result<std::string> read_whole(const InputFiles& files, const std::string& name, int64_t most);

// A folder, or a single file (whose name is then the only one). Files of folders below it are left
// out. Error: the path is neither.
Result<std::unique_ptr<InputFiles>> open_input_files(const std::string& path);

}  // namespace weft
