// What every command is given, and how it tells of failures.
// Thread safety: one thread. Ownership: values.
#pragma once

#include <string>

#include "coordinator/cli/api_client.h"
#include "coordinator/cli/exit_codes.h"
#include "coordinator/cli/render.h"
#include "coordinator/cli/settings.h"

namespace weft::cli {

struct Context {
  Settings settings;
  bool json = false;
  Terminal terminal;
};

// Prints "weft: ..." to standard error, as JSON where --json was given; gives the exit status.
int report(const Context& context, const Status& status);

void print(const std::string& text);                             // to standard output
void print_json(const google::protobuf::Message& message);       // one document
void print_json_line(const google::protobuf::Message& message);  // of a stream

// The exit status that a job's state stands for.
int exit_code(proto::JobState state);
bool is_finished(proto::JobState state);

}  // namespace weft::cli
