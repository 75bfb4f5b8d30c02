// Makes the errors of a job's rules, each with its line.
//
// Thread safety: const calls from any thread. Ownership: refers to the lines.
#pragma once

#include <string>
#include <utility>

#include "proto/base/status.h"
#include "proto/json/value.h"

namespace weft {

class Refusal {
 public:
  explicit Refusal(const LineMap* lines) : lines_(lines) {}
  Status operator()(std::string field, std::string value, std::string rule) const {
    int line = lines_ == nullptr ? 0 : lines_->find(field);
    return Status::invalid(std::move(field), std::move(value), std::move(rule)).with_line(line);
  }
  Status operator()(std::string field, int64_t value, std::string rule) const {
    return (*this)(std::move(field), std::to_string(value), std::move(rule));
  }

 private:
  const LineMap* lines_;
};

}  // namespace weft
