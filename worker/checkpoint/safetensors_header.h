// The header of a safetensors file, checked against the file's size. See safetensors.h.
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "worker/checkpoint/safetensors.h"

namespace weft::checkpoint {

struct SafetensorsHeader {
  std::map<std::string, SafetensorInfo> tensors;
  std::map<std::string, std::string> metadata;
};

// Where weights stand in several files: the index beside them.
inline constexpr const char* kSafetensorsIndexName = "model.safetensors.index.json";
// tensor -> name of its file, as an index says; `path` is named in errors.
Result<std::map<std::string, std::string>> parse_safetensors_index(std::string_view text,
                                                                   const std::string& path);

// Bytes an element; 0: no such dtype.
int64_t safetensors_dtype_bytes(std::string_view dtype);

// `data_bytes`: bytes of the file behind the header. Errors name the tensor and the rule.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view text, int64_t data_bytes);

// Length of the header that a file of `file_bytes` bytes announces in its first 8 bytes.
Result<int64_t> safetensors_header_bytes(std::string_view first, int64_t file_bytes);

// ok, or which byte is covered twice or not at all, and by which tensors.
Status check_tiling(const std::map<std::string, SafetensorInfo>& tensors, int64_t data_bytes);

}  // namespace weft::checkpoint
