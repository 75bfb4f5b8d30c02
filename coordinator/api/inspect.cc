// What a job's ranks do now, and traces of its steps.
#include "coordinator/api/api.h"
#include "coordinator/api/chrome_trace.h"
#include "coordinator/api/json_body.h"
#include "coordinator/service.h"
#include "proto/api.pb.h"
#include "proto/json/rules.h"

namespace weft::api {
namespace {

Result<Response> start_trace(Service& service, const Request& request) {
  proto::TraceRequest asked;
  WEFT_RETURN_IF_ERROR(read_body(request, asked));
  WEFT_RETURN_IF_ERROR(apply_defaults(asked));
  WEFT_RETURN_IF_ERROR(check_rules(asked));
  WEFT_ASSIGN_OR_RETURN(const proto::JobTrace trace,
                        service.start_trace(request.parameter("id"), asked.steps()));
  return json_response(trace, 202);
}

Result<Response> events(Service& service, const Request& request) {
  WEFT_ASSIGN_OR_RETURN(auto parts, service.trace_parts(request.parameter("id")));
  Response response;
  response.stream = chrome_trace(std::move(parts));
  return response;
}

}  // namespace

void add_inspect_routes(Router& router, Service& service) {
  Route stack;
  stack.method = "GET";
  stack.pattern = "/api/v1/jobs/{id}/stack";
  stack.summary = "What each rank of an active job does now; answers within 3 s";
  stack.response = proto::JobStack::descriptor();
  stack.handler = [&service](const Request& request) -> Result<Response> {
    WEFT_ASSIGN_OR_RETURN(const proto::JobStack found, service.stack(request.parameter("id")));
    return json_response(found);
  };
  router.add(std::move(stack));

  Route start;
  start.method = "POST";
  start.pattern = "/api/v1/jobs/{id}/trace";
  start.summary =
      "Record the next steps of a running job, in place of its trace before; 409 while one is "
      "recorded";
  start.body = BodyKind::kJson;
  start.request = proto::TraceRequest::descriptor();
  start.response = proto::JobTrace::descriptor();
  start.success = 202;
  start.handler = [&service](const Request& request) { return start_trace(service, request); };
  router.add(std::move(start));

  Route trace;
  trace.method = "GET";
  trace.pattern = "/api/v1/jobs/{id}/trace";
  trace.summary = "How far a job's newest trace is, and what it comes to; kept in memory only";
  trace.response = proto::JobTrace::descriptor();
  trace.handler = [&service](const Request& request) -> Result<Response> {
    WEFT_ASSIGN_OR_RETURN(const proto::JobTrace found, service.trace(request.parameter("id")));
    return json_response(found);
  };
  router.add(std::move(trace));

  Route end;
  end.method = "DELETE";
  end.pattern = "/api/v1/jobs/{id}/trace";
  end.summary =
      "End a recording whose steps do not end, as where a rank is stopped: the others send what "
      "they have, within 3 s";
  end.response = proto::JobTrace::descriptor();
  end.success = 202;
  end.handler = [&service](const Request& request) -> Result<Response> {
    WEFT_ASSIGN_OR_RETURN(const proto::JobTrace found, service.end_trace(request.parameter("id")));
    return json_response(found, 202);
  };
  router.add(std::move(end));

  Route all;
  all.method = "GET";
  all.pattern = "/api/v1/jobs/{id}/trace/events";
  all.summary =
      "A trace that is complete, or as complete as it will be, in the Trace Event Format, for "
      "Perfetto and chrome://tracing";
  all.handler = [&service](const Request& request) { return events(service, request); };
  router.add(std::move(all));
}

}  // namespace weft::api
