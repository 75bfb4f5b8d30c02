#include "worker/data/source_rows.h"

#include <utility>

#include "proto/json/value.h"

namespace weft {

using nlohmann::json;

ParseLimits line_limits(int64_t bytes_max) {
  ParseLimits limits;
  limits.bytes_max = static_cast<size_t>(bytes_max);
  return limits;
}

Status for_each_line(std::string_view bytes, const std::string& name,
                     const std::function<Status(std::string_view, Document)>& visit) {
  int64_t number = 0;
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    const std::string_view line = bytes.substr(0, end);
    bytes.remove_prefix(end == std::string_view::npos ? bytes.size() : end + 1);
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    Document document;
    document.file = name;
    document.line = number;
    WEFT_RETURN_IF_ERROR(visit(line, std::move(document)));
  }
  return {};
}

Result<json> read_row(std::string_view line, int64_t bytes_max, const Document& at,
                      const std::string& example) {
  if (static_cast<int64_t>(line.size()) > bytes_max) {
    return fail(at.refuse("line", std::to_string(line.size()) + " bytes",
                          "must have at most " + std::to_string(bytes_max)));
  }
  auto row = parse_strict(line, line_limits(bytes_max));
  if (!row) {
    Status error = row.error();
    if (error.field().empty()) error.with_field("line");
    if (error.value().empty()) error.with_value(shortened(line, 80));
    return fail(at.refuse(error));
  }
  if (row->is_object()) return std::move(*row);
  return fail(at.refuse("line", shown_json(*row), "must be one JSON object, as in " + example));
}

std::string shown_json(const json& value) {
  return shortened(value.dump(-1, ' ', false, json::error_handler_t::replace), 80);
}

Status lacks(const Document& at, const std::string& key, const json& row) {
  std::string keys;
  for (const auto& [name, value] : row.items()) keys += (keys.empty() ? "" : ", ") + name;
  return at.refuse(key, "",
                   "is missing; " + (keys.empty() ? "the row is empty"
                                                  : "the row's keys are: " + shortened(keys)));
}

}  // namespace weft
