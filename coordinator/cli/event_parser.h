// Server-sent events out of a stream of bytes.
// Thread safety: one thread. Ownership: owns what it has not handed out.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "proto/base/status.h"

namespace weft::cli {

struct ServerEvent {
  std::string id;
  std::string type;
  std::string data;
};

class EventParser {
 public:
  // Calls `take` for each event that is complete; comments are skipped.
  Status feed(std::string_view bytes, const std::function<Status(const ServerEvent&)>& take);

 private:
  Status line(std::string_view text, const std::function<Status(const ServerEvent&)>& take);
  std::string partial_;
  ServerEvent event_;
  bool has_data_ = false;
};

}  // namespace weft::cli
