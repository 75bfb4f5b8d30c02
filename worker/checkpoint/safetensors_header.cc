#include "worker/checkpoint/safetensors_header.h"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "proto/json/parse.h"

namespace weft::checkpoint {
namespace {

using nlohmann::json;

constexpr size_t kDimsMax = 16;
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

Status wrong(const std::string& tensor, const std::string& key, const json& value,
             const std::string& rule) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return Status::invalid("\"" + tensor + "\"" + (key.empty() ? "" : "." + key), text, rule);
}

// A non-negative int64, or false.
bool to_count(const json& value, int64_t* out) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(kMost)) return false;
    *out = static_cast<int64_t>(number);
    return true;
  }
  *out = value.get<int64_t>();
  return *out >= 0;
}

Status read_shape(const json& value, SafetensorInfo* info, int64_t* bytes) {
  if (!value.is_array()) return wrong(info->name, "shape", value, "must be an array of sizes");
  if (value.size() > kDimsMax) {
    return wrong(info->name, "shape", value, "must have at most 16 dims");
  }
  *bytes = safetensors_dtype_bytes(info->dtype);
  bool zero = false;
  for (const json& entry : value) {
    int64_t size = 0;
    if (!to_count(entry, &size)) {
      return wrong(info->name, "shape", value, "each size must be an integer of at least 0");
    }
    info->shape.push_back(size);
    zero = zero || size == 0;
    if (size > 0 && *bytes > kMost / size) {
      return wrong(info->name, "shape", value, "the tensor's bytes must fit into 63 bits");
    }
    *bytes *= std::max<int64_t>(size, 1);
  }
  if (zero) *bytes = 0;
  return {};
}

Result<SafetensorInfo> read_tensor(const std::string& name, const json& entry, int64_t data_bytes) {
  if (!entry.is_object()) return fail(wrong(name, "", entry, "must be an object"));
  for (const auto& [key, value] : entry.items()) {
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      return fail(wrong(name, key, value, "is not a key of a tensor"));
    }
  }
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!entry.contains(key)) return fail(wrong(name, key, json(), "is missing"));
  }
  SafetensorInfo info;
  info.name = name;
  const json& dtype = entry.at("dtype");
  if (!dtype.is_string()) return fail(wrong(name, "dtype", dtype, "must be a string"));
  info.dtype = dtype.get<std::string>();
  if (safetensors_dtype_bytes(info.dtype) == 0) {
    return fail(wrong(name, "dtype", dtype, "must be a dtype of the format (F32, BF16, I64, ...)"));
  }
  int64_t bytes = 0;
  WEFT_RETURN_IF_ERROR(read_shape(entry.at("shape"), &info, &bytes));
  const json& offsets = entry.at("data_offsets");
  if (!offsets.is_array() || offsets.size() != 2 || !to_count(offsets[0], &info.begin) ||
      !to_count(offsets[1], &info.end)) {
    return fail(wrong(name, "data_offsets", offsets, "must be two integers of at least 0"));
  }
  if (info.end < info.begin) {
    return fail(wrong(name, "data_offsets", offsets, "the end must not be before the start"));
  }
  if (info.end > data_bytes) {
    return fail(wrong(name, "data_offsets", offsets,
                      "must lie in the file's " + std::to_string(data_bytes) + " data bytes"));
  }
  if (info.end - info.begin != bytes) {
    return fail(wrong(name, "data_offsets", offsets,
                      "must span the " + std::to_string(bytes) + " bytes of dtype and shape"));
  }
  return info;
}

}  // namespace

int64_t safetensors_dtype_bytes(std::string_view dtype) {
  static constexpr std::array<std::pair<std::string_view, int64_t>, 14> kBytes = {{{"F64", 8},
                                                                                   {"I64", 8},
                                                                                   {"U64", 8},
                                                                                   {"F32", 4},
                                                                                   {"I32", 4},
                                                                                   {"U32", 4},
                                                                                   {"F16", 2},
                                                                                   {"BF16", 2},
                                                                                   {"I16", 2},
                                                                                   {"U16", 2},
                                                                                   {"I8", 1},
                                                                                   {"U8", 1},
                                                                                   {"BOOL", 1},
                                                                                   {"F8_E4M3", 1}}};
  for (const auto& [name, bytes] : kBytes) {
    if (name == dtype) return bytes;
  }
  return dtype == "F8_E5M2" ? 1 : 0;
}

Status check_tiling(const std::map<std::string, SafetensorInfo>& tensors, int64_t data_bytes) {
  std::vector<const SafetensorInfo*> order;
  for (const auto& [name, info] : tensors) order.push_back(&info);
  std::sort(order.begin(), order.end(), [](const SafetensorInfo* a, const SafetensorInfo* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  int64_t reached = 0;
  std::string last;
  for (const SafetensorInfo* info : order) {
    if (info->begin != reached) {
      return Status::invalid(
          "\"" + info->name + "\".data_offsets", std::to_string(info->begin),
          info->begin < reached
              ? "overlaps \"" + last + "\", which ends at " + std::to_string(reached)
              : "leaves a gap behind byte " + std::to_string(reached));
    }
    reached = info->end;
    last = info->name;
  }
  if (reached != data_bytes) {
    return Status::invalid("file size", std::to_string(data_bytes) + " data bytes",
                           "the tensors end at byte " + std::to_string(reached));
  }
  return {};
}

Result<SafetensorsHeader> parse_safetensors_header(std::string_view text, int64_t data_bytes) {
  ParseLimits limits;
  limits.bytes_max = static_cast<size_t>(kSafetensorsHeaderBytesMax);
  limits.depth_max = 8;
  if (text.empty() || text.front() != '{') {
    return fail(Status::invalid("header", "", "must start with {"));
  }
  WEFT_ASSIGN_OR_RETURN(const json header, parse_strict(text, limits));
  if (!header.is_object()) return fail(Status::invalid("header", "", "must be an object"));
  SafetensorsHeader result;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) return fail(wrong(name, "", entry, "must be an object"));
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) return fail(wrong(name, key, value, "must be a string"));
        result.metadata[key] = value.get<std::string>();
      }
      continue;
    }
    WEFT_ASSIGN_OR_RETURN(SafetensorInfo info, read_tensor(name, entry, data_bytes));
    result.tensors.emplace(name, std::move(info));
  }
  WEFT_RETURN_IF_ERROR(check_tiling(result.tensors, data_bytes));
  return result;
}

}  // namespace weft::checkpoint
