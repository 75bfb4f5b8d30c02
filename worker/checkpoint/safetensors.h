// The safetensors format: 8 bytes little-endian length of the header, the header (a JSON object:
// name -> dtype, shape, data_offsets; "__metadata__" maps strings to strings), then the tensors'
// bytes, row-major and little-endian, that tile the rest of the file without gap or overlap.
//
// Thread safety: const calls of a file from any thread; a writer belongs to one thread. Ownership:
// files own their descriptor; nothing is mapped or held but the header.
// Invariants: 1. no byte outside of the file is read, whatever the header says. 2. an error names
// the file, the tensor and the rule. 3. a written file appears under its name only when complete.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "proto/base/status.h"

namespace weft {

inline constexpr int64_t kSafetensorsHeaderBytesMax = 100'000'000;

struct SafetensorInfo {
  std::string name;
  std::string dtype;           // "F32", "F64", "F16", "BF16", "I64", "I32", "U8", "BOOL", ...
  std::vector<int64_t> shape;  // empty: a scalar
  int64_t begin = 0, end = 0;  // bytes, counted from behind the header
  int64_t elements() const;
};

class SafetensorsFile {
 public:
  // Reads and checks the header only.
  static Result<SafetensorsFile> open(const std::string& path);
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;
  ~SafetensorsFile();

  const std::string& path() const;
  const std::map<std::string, SafetensorInfo>& tensors() const;
  const std::map<std::string, std::string>& metadata() const;
  const SafetensorInfo* find(const std::string& name) const;  // null: none

  // The elements [start, start + length) along `dim`, the other dims whole, row-major, into `out`
  // (which has just that many elements), converted from F32, F64, F16, BF16 or I64. dim -1: the
  // whole tensor. Reads only those bytes. Errors: no such tensor, another dtype, a range outside of
  // the shape, a short read.
  Status read(const std::string& name, int dim, int64_t start, int64_t length,
              std::span<float> out) const;
  Status read(const std::string& name, std::span<float> out) const;
  // The whole tensor of dtype I64 (or I32) as it is.
  Status read_integers(const std::string& name, std::span<int64_t> out) const;

 private:
  struct State;
  explicit SafetensorsFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Several files as one: a checkpoint in shards.
class SafetensorsSet {
 public:
  // `files`: full paths. Error: a tensor in two of them.
  static Result<SafetensorsSet> open(const std::vector<std::string>& files);
  // model.safetensors, or the files of model.safetensors.index.json (whose weight_map has to agree
  // with the files, which lie in the folder itself).
  static Result<SafetensorsSet> open_folder(const std::string& folder);

  std::vector<std::string> names() const;                     // sorted
  const SafetensorInfo* find(const std::string& name) const;  // null: none
  Status read(const std::string& name, int dim, int64_t start, int64_t length,
              std::span<float> out) const;

 private:
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t> file_of_;
};

// The files of open_folder, in the order of their names.
Result<std::vector<std::string>> safetensors_files(const std::string& folder);

struct SafetensorSpec {
  std::string name;
  std::vector<int64_t> shape;
};

// Appends bytes to the current tensor.
using FloatSink = std::function<Status(std::span<const float>)>;
// Gives the tensor's elements in order, in as many pieces as it likes.
using TensorProducer = std::function<Status(const SafetensorSpec& tensor, const FloatSink& write)>;

// Writes F32 tensors, sorted by name, with {"format": "pt"}: the header first, then each tensor as
// `produce` gives it. Goes to "<path>.part", synced and renamed at the end; nothing is left on
// failure. Errors: two tensors of one name, too few or too many elements, a full disk.
Status write_safetensors(const std::string& path, std::vector<SafetensorSpec> tensors,
                         const TensorProducer& produce);

}  // namespace weft
