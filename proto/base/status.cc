#include "proto/base/status.h"

namespace weft {

std::string_view code_name(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kInvalidArgument:
      return "invalid_argument";
    case Code::kNotFound:
      return "not_found";
    case Code::kAlreadyExists:
      return "already_exists";
    case Code::kFailedPrecondition:
      return "failed_precondition";
    case Code::kUnauthenticated:
      return "unauthenticated";
    case Code::kPermissionDenied:
      return "permission_denied";
    case Code::kStale:
      return "stale";
    case Code::kResourceExhausted:
      return "resource_exhausted";
    case Code::kUnavailable:
      return "unavailable";
    case Code::kDeadlineExceeded:
      return "deadline_exceeded";
    case Code::kCorruption:
      return "corruption";
    case Code::kCancelled:
      return "cancelled";
    case Code::kInternal:
      return "internal";
  }
  return "internal";
}

Status Status::invalid(std::string field, std::string value, std::string rule) {
  Status status(Code::kInvalidArgument, field + " " + rule);
  status.field_ = std::move(field);
  status.value_ = std::move(value);
  status.rule_ = std::move(rule);
  return status;
}

Status Status::with_prefix(std::string_view prefix) const {
  Status status = *this;
  if (prefix.ends_with(": ")) prefix.remove_suffix(2);  // callers that brought their own
  status.message_ = std::string(prefix) + ": " + message_;
  return status;
}

std::string Status::to_string() const {
  if (ok()) return "ok";
  std::string text = message_;
  if (!rule_.empty() && message_.find(rule_) == std::string::npos) text += ": " + rule_;
  if (!value_.empty()) text += " (got " + value_ + ")";
  const std::string line = "line " + std::to_string(line_);
  if (line_ > 0 && message_.find(line) == std::string::npos) text += " (" + line + ")";
  return text;
}

}  // namespace weft
