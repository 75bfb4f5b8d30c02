#include "coordinator/cli/context.h"

#include <fmt/format.h>

#include <cstdio>
#include <sstream>

#include "coordinator/cli/api_client.h"
#include "proto/json/message_json.h"
#include "proto/json/writer.h"

namespace weft::cli {

int report(const Context& context, const Status& status) {
  if (context.json) {
    proto::ErrorBody body;
    proto::ApiError& error = *body.mutable_error();
    error.set_code(std::string(code_name(status.code())));
    error.set_message(status.message());
    error.set_field(status.field());
    error.set_value(status.value());
    error.set_rule(status.rule());
    error.set_line(status.line());
    error.set_request_id(status.request_id());
    fmt::print(stderr, "{}\n", write_json(body));
  } else {
    std::istringstream lines(status.to_string());  // the end of a log has several
    std::string text, line;
    while (std::getline(lines, line)) text += (text.empty() ? "weft: " : "\n  ") + printable(line);
    fmt::print(stderr, "{}\n", text);
  }
  return status.code() == Code::kNotFound ? kExitNotFound : kExitError;
}

int report_usage(const Context& context, const Status& status) {
  report(context, status);
  return kExitUsage;
}

Status local(Status status) {
  if (status.code() != Code::kNotFound) return status;
  return Status(Code::kInvalidArgument, status.message())
      .with_field(status.field())
      .with_value(status.value())
      .with_rule(status.rule())
      .with_line(status.line());
}

void print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

void print_json(const google::protobuf::Message& message) {
  print(write_json(message, {.indent = 2, .unset_as_null = true}) + "\n");
}

void print_json_line(const google::protobuf::Message& message) {
  print(write_json(message, {.indent = 0, .unset_as_null = true}) + "\n");
  std::fflush(stdout);
}

void tell_deleted(const Context& context, const std::string& id) {
  if (!context.json) return print(id + " is deleted\n");
  JsonWriter out(0);
  out.begin_object().key("id").string(id).key("deleted").boolean(true).end_object();
  print(out.take() + "\n");
}

bool is_finished(proto::JobState state) {
  return state == proto::JOB_STATE_SUCCEEDED || state == proto::JOB_STATE_FAILED ||
         state == proto::JOB_STATE_CANCELLED;
}

int exit_code(proto::JobState state) {
  switch (state) {
    case proto::JOB_STATE_SUCCEEDED:
      return kExitOk;
    case proto::JOB_STATE_FAILED:
      return kExitJobFailed;
    case proto::JOB_STATE_CANCELLED:
      return kExitCancelled;
    default:
      return kExitNotFinished;
  }
}

}  // namespace weft::cli
