#include "coordinator/cli/event_parser.h"

#include <utility>

namespace weft::cli {

Status EventParser::line(std::string_view text,
                         const std::function<Status(const ServerEvent&)>& take) {
  if (text.empty()) {
    const ServerEvent event = std::exchange(event_, {});
    return std::exchange(has_data_, false) ? take(event) : Status();
  }
  const size_t colon = std::min(text.find(':'), text.size());
  const std::string_view name = text.substr(0, colon);
  std::string_view value = colon < text.size() ? text.substr(colon + 1) : "";
  if (!value.empty() && value.front() == ' ') value.remove_prefix(1);
  if (name == "id") event_.id = value;
  if (name == "event") event_.type = value;
  if (name == "data") {
    if (has_data_) event_.data += '\n';
    event_.data += value;
    has_data_ = true;
  }
  return Status();
}

Status EventParser::feed(std::string_view bytes,
                         const std::function<Status(const ServerEvent&)>& take) {
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    if (end == std::string_view::npos) {
      partial_ += bytes;
      return Status();
    }
    partial_ += bytes.substr(0, end);
    bytes.remove_prefix(end + 1);
    std::string whole = std::exchange(partial_, {});
    if (!whole.empty() && whole.back() == '\r') whole.pop_back();
    WEFT_RETURN_IF_ERROR(line(whole, take));
  }
  return Status();
}

}  // namespace weft::cli
