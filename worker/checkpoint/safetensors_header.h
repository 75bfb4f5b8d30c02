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

// Bytes an element; 0: no such dtype.
int64_t safetensors_dtype_bytes(std::string_view dtype);

// `data_bytes`: bytes of the file behind the header. Errors name the tensor and the rule.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view text, int64_t data_bytes);

// ok, or which byte is covered twice or not at all, and by which tensors.
Status check_tiling(const std::map<std::string, SafetensorInfo>& tensors, int64_t data_bytes);

}  // namespace weft::checkpoint
