#include "coordinator/api/rest_reference.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>

#include <set>
#include <string_view>

#include "proto/api.pb.h"
#include "proto/json/schema.h"

namespace weft::api {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

constexpr std::string_view kIntroduction = R"(# The REST API

<!-- Printed by docs/reference/generate.sh from the table of routes; change it there. -->

`GET /api/v1/openapi.json` is the same as an OpenAPI 3.1 document. The examples use

    SERVER=http://127.0.0.1:7070
    TOKEN=$(cat DATA/token)          # DATA: the data folder; `weft token` says where the file is

## Authentication
Every request but `GET /api/v1/health` carries `Authorization: Bearer TOKEN`, also on loopback; else
it is 401. `Host` must name this server (localhost or the address of the connection, with this
server's port or none; a `--host-name` with any port), and a browser's `Origin` and
`Sec-Fetch-Site` must say that the page came from this server; else it is 403.

## Bodies
JSON in UTF-8, `Content-Type: application/json`. In an answer zeros, `false`, empty texts and empty
lists are written; a field that is not set (`loss` before the first step) is left out. The OpenAPI
document's `required` names those that are always there. An unknown or repeated key, a wrong type, a
value out of bounds and an unknown query parameter are refused. `HEAD` is answered where `GET` is;
`OPTIONS` is answered by `Allow`. Every answer carries `X-Request-Id`, which the coordinator's log
has too.

## Idempotency
`POST /api/v1/jobs` takes `Idempotency-Key`, 1 to 200 visible ASCII characters: the same key with
the same body is answered by the job that it made first, with another body by 409
`already_exists`. Cancel, pause, resume, uploads and deletions may be repeated as they are.

## Pages
Lists take `limit` (1 to 1000, default 100) and `after`. Pass the page's `next` as `after` to go on:
jobs until `next` is empty, the others while `more` is true.

## Live streams
Where an endpoint says so, `Accept: text/event-stream` turns it into server-sent events. Each has an
`id`; after a lost connection send it back as `Last-Event-ID`, and the stream goes on without gap or
repeat. A line `: heartbeat` comes while nothing happens. The last event is `end`: its data is the
finished job, or `{"state":"deleted"}`.

    curl -N -H "Authorization: Bearer $TOKEN" -H "Accept: text/event-stream" \
         -H "Last-Event-ID: 12" $SERVER/api/v1/jobs/JOB/events

    id: 13
    event: event
    data: {"sequence":13,...}

`event` is `event`, `metric`, `checkpoint` or `log`, or `end`; the data of the first three is what a
page of that endpoint lists, of a log the page itself.

)";

struct EventRow {
  std::string_view type, meaning;
};
constexpr EventRow kEvents[] = {
    {"submitted",
     "the job is stored and waits; `data`: the model's `parameters`, and how many of them are "
     "`trained_parameters`"},
    {"planned", "`parallel: auto` has chosen its mesh"},
    {"queued", "it waits again: resumed by request, or stopped in a checkpoint by a drain"},
    {"starting", "it is placed; an attempt begins"},
    {"running", "its ranks train"},
    {"evaluated", "a task's validation loss"},
    {"checkpoint", "a checkpoint is committed"},
    {"checkpoint_requested", "one was asked for"},
    {"checkpoint_waits", "one cannot be stored yet, as on a full disk, and is tried again"},
    {"checkpoint_skipped", "one is left out, as the one before is still being stored"},
    {"checkpoint_resumed", "so many were left out; they are stored again"},
    {"checkpoint_removed", "one was deleted by request"},
    {"step_left", "a long step was left for a pause or cancel; it is done again"},
    {"evaluation_left", "the same of an evaluation"},
    {"priority", "its priority was changed"},
    {"time_limit", "`time_limit_seconds` is over; its ranks write a checkpoint"},
    {"pausing", "a pause was asked for; its ranks write a checkpoint"},
    {"paused", "its slots are free"},
    {"cancelling", "a cancel was asked for; its ranks write a checkpoint"},
    {"cancelled", "ended by request"},
    {"rank_failed", "a rank ended with an error"},
    {"refused", "a rank's message broke a rule"},
    {"restarted", "an attempt failed; another follows"},
    {"succeeded", "all steps are done, or it stopped early"},
    {"failed", "it ends, with the reason"},
};

struct ErrorRow {
  Code code;
  std::string_view meaning;
};
constexpr ErrorRow kErrors[] = {
    {Code::kInvalidArgument, "the request breaks a rule"},
    {Code::kUnauthenticated, "no token, or not a valid one"},
    {Code::kPermissionDenied, "refused Host, Origin or Sec-Fetch-Site"},
    {Code::kNotFound, "no such path, job, checkpoint, chunk, object or file"},
    {Code::kAlreadyExists, "the Idempotency-Key was used with another body"},
    {Code::kFailedPrecondition, "right request, wrong state"},
    {Code::kStale, "told about an attempt that is over"},
    {Code::kResourceExhausted, "the disk is full, or a limit is reached"},
    {Code::kUnavailable, "may come back; `Retry-After` says when to ask again"},
    {Code::kCancelled, "given up meanwhile"},
    {Code::kDeadlineExceeded, "took too long"},
    {Code::kCorruption, "stored bytes do not match their checksum"},
    {Code::kInternal, "our mistake; the coordinator's log has the details"},
};

constexpr std::string_view kHttpErrors =
    R"(| 405 | `method_not_allowed` | `Allow` lists the methods of this path |
| 413 | `body_too_large` | data goes up in chunks |
| 415 | `unsupported_media_type` | wrong `Content-Type`, or a `Content-Encoding` |
| 431 | `head_too_large` | the request's head is too large |

)";

std::string errors_section() {
  std::string page = R"(## Errors
Every error has one body; fields that do not apply are empty, `line` is then 0.

    {"error": {"code": "invalid_argument", "message": "...", "field": "training.steps",
               "value": "0", "rule": "at least 1", "line": 3, "request_id": "..."}}

| HTTP | code | when |
| --- | --- | --- |
)";
  for (const ErrorRow& row : kErrors) {
    page += fmt::format("| {} | `{}` | {} |\n", http_status(row.code), code_name(row.code),
                        row.meaning);
  }
  return page + std::string(kHttpErrors);
}

std::string events_section() {
  std::string page =
      "## Types of events\nThe `type` of a [JobEvent](#jobevent).\n\n"
      "| type | what happened |\n| --- | --- |\n";
  for (const EventRow& row : kEvents) page += fmt::format("| `{}` | {} |\n", row.type, row.meaning);
  return page + "\n";
}

std::string link(const Descriptor& type) {
  std::string anchor = schema_name(type);
  for (char& c : anchor) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return "[" + schema_name(type) + "](#" + anchor + ")";
}

// "{id}" of /api/v1/jobs/{id} is "JOB", as it stands in the examples.
std::string example_path(const std::string& pattern) {
  std::string path = pattern;
  std::string one = "OBJECT";
  if (pattern.starts_with("/api/v1/jobs")) one = "JOB";
  if (pattern.starts_with("/api/v1/checkpoints")) one = "CHECKPOINT";
  if (pattern.starts_with("/api/v1/nodes")) one = "NODE";
  const std::pair<std::string, std::string> names[] = {
      {"{id}", one}, {"{sha256}", "SHA256"}, {"{name}", "config.json"}};
  for (const auto& [from, to] : names) {
    if (const size_t at = path.find(from); at != std::string::npos) {
      path.replace(at, from.size(), to);
    }
  }
  return path;
}

std::string example(const Route& route) {
  std::string text = "    curl";
  if (route.method != "GET") text += " -X " + route.method;
  if (!route.open) text += " -H \"Authorization: Bearer $TOKEN\"";
  if (route.body == BodyKind::kJson) {
    text += " -H \"Content-Type: application/json\" \\\n         --data-binary @body.json";
  } else if (route.body == BodyKind::kBytes) {
    text += " -H \"Content-Type: application/octet-stream\" \\\n         --data-binary @chunk";
  }
  return text + " $SERVER" + example_path(route.pattern) + "\n\n";
}

std::string answer_text(const Route& route) {
  std::string text = fmt::format("Answer: {}", route.success);
  if (route.response != nullptr) {
    text += ", " + link(*route.response);
  } else if (route.success != 204) {
    text += ", `" + route.response_type + "`";
  }
  if (route.streams) text += "; also a live stream";
  return text + (route.open ? ". Needs no token.\n\n" : ".\n\n");
}

std::string route_section(const Route& route) {
  std::string page = "### " + route.method + " " + route.pattern + "\n" + route.summary + ".\n\n";
  if (!route.query.empty()) {
    page += "| query parameter | meaning |\n| --- | --- |\n";
    for (const QueryParameter& parameter : route.query) {
      page += "| `" + parameter.name + "` | " + parameter.help + " |\n";
    }
    page += "\n";
  }
  if (route.request != nullptr) {
    page += "Body: " + link(*route.request) +
            (route.body_optional ? "; may be left out, with its Content-Type.\n\n" : ".\n\n");
  }
  if (route.body == BodyKind::kBytes) page += "Body: `application/octet-stream`.\n\n";
  return page + answer_text(route) + example(route);
}

void collect(const Descriptor& type, std::set<std::string>& seen, std::string& page) {
  if (!seen.insert(schema_name(type)).second) return;
  page += schema_section(type);
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const FieldDescriptor& value = field.is_map() ? *field.message_type()->map_value() : field;
    if (value.message_type() != nullptr) collect(*value.message_type(), seen, page);
  }
}

}  // namespace

std::string rest_reference(const Router& router) {
  std::string page =
      std::string(kIntroduction) + events_section() + errors_section() + "## Endpoints\n\n";
  std::string types = "## Types\n\n";
  std::set<std::string> seen = {"Struct"};  // any JSON object
  for (const Route& route : router.routes()) {
    page += route_section(route);
    if (route.request != nullptr) collect(*route.request, seen, types);
    if (route.response != nullptr) collect(*route.response, seen, types);
  }
  collect(*proto::ErrorBody::descriptor(), seen, types);
  while (types.ends_with("\n\n")) types.pop_back();
  return page + types;
}

}  // namespace weft::api
