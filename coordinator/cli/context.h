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

// Prints "weft: ..." to standard error, with --json one line of the API's ErrorBody; gives the exit
// status. kNotFound is the service's word for a job, checkpoint or the like (102); what is missing
// on this machine is kInvalidArgument (1).
int report(const Context& context, const Status& status);
// The same for a command line that is wrong in itself (2).
int report_usage(const Context& context, const Status& status);
// A Status of a library that looked for local files: kNotFound becomes kInvalidArgument.
Status local(Status status);

void print(const std::string& text);                             // to standard output
void print_json(const google::protobuf::Message& message);       // one document
void print_json_line(const google::protobuf::Message& message);  // of a stream

void tell_deleted(const Context& context, const std::string& id);

// The exit status that a job's state stands for.
int exit_code(proto::JobState state);
bool is_finished(proto::JobState state);

}  // namespace weft::cli
