// What the world does to us comes back as a Status or a Result: bad input, a full disk, a peer that
// is gone. What we did wrong is a WEFT_CHECK (check.h). The two are never mixed.
//
// A Status names the code, the field that is wrong, the value it has and the rule it breaks, so
// that REST bodies, command-line errors and job events all tell the same thing.
//
// Inside the compute path (ops, collectives, the training step) a Status travels as StatusError and
// is turned back into a Status by the caller of the step; nowhere else is an exception thrown.
//
// Thread safety: values. Ownership: none.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace weft {

enum class Code {
  kOk,
  kInvalidArgument,     // the caller's input breaks a rule
  kNotFound,            // no such job, checkpoint, chunk, file
  kAlreadyExists,       // the name or id is taken by something else
  kFailedPrecondition,  // right input, wrong state (cancel of a finished job)
  kUnauthenticated,     // no token, or not a valid one
  kPermissionDenied,    // a valid token without the right
  kStale,               // an old attempt, an old plan, an old lease
  kResourceExhausted,   // disk, memory, quota, size limit
  kUnavailable,         // a peer or device that may come back
  kDeadlineExceeded,
  kCorruption,  // bytes that do not match their checksum or format
  kCancelled,
  kInternal,
};

// "invalid_argument", "not_found", ...: the spelling in REST bodies and --json.
std::string_view code_name(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;  // ok
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  // The usual error about one field: Status::invalid("parallel.tensor", "0", "must be at least 1").
  static Status invalid(std::string field, std::string value, std::string rule);

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& field() const { return field_; }
  const std::string& value() const { return value_; }
  const std::string& rule() const { return rule_; }
  int line() const { return line_; }  // 1-based line of a file, 0 where there is none
  // The request that a server refused with this, as its log names it; empty where there was none.
  const std::string& request_id() const { return request_id_; }

  Status& with_field(std::string field) {
    field_ = std::move(field);
    return *this;
  }
  Status& with_value(std::string value) {
    value_ = std::move(value);
    return *this;
  }
  Status& with_rule(std::string rule) {
    rule_ = std::move(rule);
    return *this;
  }
  Status& with_line(int line) {
    line_ = line;
    return *this;
  }
  Status& with_request_id(std::string request_id) {
    request_id_ = std::move(request_id);
    return *this;
  }
  // Puts "job-x: " or "model.safetensors: " in front of the message.
  Status with_prefix(std::string_view prefix) const;

  // One line for people: message, field, value, rule, line, as far as they are set.
  std::string to_string() const;

 private:
  Code code_ = Code::kOk;
  int line_ = 0;
  std::string message_, field_, value_, rule_, request_id_;
};

template <typename T>
using Result = tl::expected<T, Status>;

// return fail(Code::kNotFound, "no job job-x");
inline tl::unexpected<Status> fail(Status status) {
  return tl::unexpected<Status>(std::move(status));
}
inline tl::unexpected<Status> fail(Code code, std::string message) {
  return tl::unexpected<Status>(Status(code, std::move(message)));
}

// A Status on its way through the compute path; see the head of this file.
class StatusError : public std::runtime_error {
 public:
  explicit StatusError(Status status)
      : std::runtime_error(status.to_string()), status_(std::move(status)) {}
  const Status& status() const { return status_; }

 private:
  Status status_;
};

}  // namespace weft

// Statement macros for code that passes failures on. The expression is evaluated once.
#define WEFT_CONCAT_INNER(a, b) a##b
#define WEFT_CONCAT(a, b) WEFT_CONCAT_INNER(a, b)
#define WEFT_RETURN_IF_ERROR(expression)                                \
  do {                                                                  \
    if (::weft::Status weft_status = (expression); !weft_status.ok()) { \
      return ::weft::detail::pass_on(std::move(weft_status));           \
    }                                                                   \
  } while (false)
#define WEFT_ASSIGN_OR_RETURN(declaration, expression) \
  WEFT_ASSIGN_OR_RETURN_IMPL(WEFT_CONCAT(weft_result_, __LINE__), declaration, expression)
#define WEFT_ASSIGN_OR_RETURN_IMPL(result, declaration, expression)                   \
  auto result = (expression);                                                         \
  if (!result.has_value()) return ::weft::detail::pass_on(std::move(result).error()); \
  declaration = std::move(result).value()

namespace weft::detail {
// Converts to Status and to any Result<T>, so that the macros serve functions of both kinds.
class PassOn {
 public:
  explicit PassOn(Status status) : status_(std::move(status)) {}
  operator Status() && { return std::move(status_); }  // NOLINT: conversion is the purpose
  template <typename T>
  operator Result<T>() && {  // NOLINT: conversion is the purpose
    return tl::unexpected<Status>(std::move(status_));
  }

 private:
  Status status_;
};
inline PassOn pass_on(Status status) { return PassOn(std::move(status)); }
}  // namespace weft::detail
