#include <algorithm>
#include <cctype>

#include "coordinator/api/api.h"
#include "coordinator/api/json_body.h"
#include "coordinator/service.h"
#include "proto/api.pb.h"
#include "proto/base/hash.h"
#include "proto/json/names.h"

namespace weft::api {
namespace {

constexpr size_t kIdempotencyKeyMax = 200;

template <typename Enum>
Result<Enum> parse_enum(const google::protobuf::EnumDescriptor& type, const std::string& field,
                        const std::string& text) {
  const google::protobuf::EnumValueDescriptor* value = find_enum(type, text);
  if (value == nullptr) {
    return fail(Status::invalid(field, text, "must be " + one_of(enum_names(type))));
  }
  return static_cast<Enum>(value->number());
}

Result<JobFilter> parse_filter(const Request& request) {
  JobFilter filter;
  for (const auto& [name, value] : request.query) {
    if (name == "state") {
      size_t at = 0;
      while (at <= value.size()) {
        const size_t end = std::min(value.find(',', at), value.size());
        WEFT_ASSIGN_OR_RETURN(const auto state,
                              parse_enum<proto::JobState>(*proto::JobState_descriptor(), "state",
                                                          value.substr(at, end - at)));
        filter.states.push_back(state);
        at = end + 1;
      }
    } else if (name == "kind") {
      WEFT_ASSIGN_OR_RETURN(
          filter.kind, parse_enum<proto::JobKind>(*proto::JobKind_descriptor(), "kind", value));
    } else if (name == "name") {
      filter.name = value;
    } else if (name == "after") {
      filter.after = value;
    } else if (name == "label") {
      const size_t equals = value.find('=');
      if (equals == std::string::npos || equals == 0) {
        return fail(Status::invalid("label", value, "must be KEY=VALUE"));
      }
      filter.labels[value.substr(0, equals)] = value.substr(equals + 1);
    } else if (name == "order") {
      if (value != "newest" && value != "oldest") {
        return fail(Status::invalid("order", value, "must be newest or oldest"));
      }
      filter.newest_first = value == "newest";
    }
  }
  WEFT_ASSIGN_OR_RETURN(const int64_t limit,
                        query_int(request, "limit", kPageLimitDefault, 1, kPageLimitMax));
  filter.limit = static_cast<int>(limit);
  return filter;
}

Result<Response> list(Service& service, const Request& request) {
  WEFT_ASSIGN_OR_RETURN(const JobFilter filter, parse_filter(request));
  WEFT_ASSIGN_OR_RETURN(JobPage page, service.jobs(filter));
  proto::JobPage body;
  for (proto::Job& job : page.jobs) *body.add_jobs() = std::move(job);
  body.set_next(page.next);
  body.set_total(page.total);
  return json_response(body);
}

Result<std::string> idempotency_key(const Request& request) {
  const std::string* key = request.header("idempotency-key");
  if (key == nullptr) return std::string();
  const bool printable =
      std::all_of(key->begin(), key->end(), [](char c) { return c > ' ' && c < '\x7f'; });
  if (key->empty() || key->size() > kIdempotencyKeyMax || !printable ||
      count_values(request.headers, "idempotency-key") != 1) {
    return fail(Status::invalid("Idempotency-Key", key->substr(0, kIdempotencyKeyMax),
                                "must be given once, with 1 to 200 visible ASCII characters"));
  }
  return *key;
}

Result<Response> submit(Service& service, const Request& request) {
  WEFT_ASSIGN_OR_RETURN(const std::string key, idempotency_key(request));
  proto::JobSpec spec;
  WEFT_RETURN_IF_ERROR(read_body(request, spec));
  WEFT_ASSIGN_OR_RETURN(proto::Job job,
                        service.submit(std::move(spec), key, sha256_hex(request.body)));
  Response response = json_response(job, 201);
  response.headers.emplace_back("Location", "/api/v1/jobs/" + job.id());
  return response;
}

Result<Response> validate(Service& service, const Request& request) {
  proto::JobSpec spec;
  WEFT_RETURN_IF_ERROR(read_body(request, spec));
  WEFT_ASSIGN_OR_RETURN(proto::JobSpec stored, service.validate(std::move(spec)));
  return json_response(stored);
}

Result<Response> plan(Service& service, const Request& request) {
  proto::PlanRequest wanted;
  WEFT_RETURN_IF_ERROR(read_body(request, wanted));
  WEFT_ASSIGN_OR_RETURN(proto::JobPlan plan, service.plan(wanted));
  return json_response(plan);
}

Result<Response> patch(Service& service, const Request& request) {
  proto::JobPatch change;
  WEFT_RETURN_IF_ERROR(read_body(request, change));
  if (!change.has_priority()) {
    return fail(Status::invalid("priority", "", "must be given: it is what can be changed"));
  }
  WEFT_ASSIGN_OR_RETURN(proto::Job job,
                        service.set_priority(request.parameter("id"), change.priority()));
  return json_response(job);
}

Result<Response> resume(Service& service, const Request& request) {
  proto::ResumeRequest change;
  if (!request.body.empty()) WEFT_RETURN_IF_ERROR(read_body(request, change));
  WEFT_ASSIGN_OR_RETURN(proto::Job job, service.resume(request.parameter("id"), change));
  return json_response(job);
}

using Action = Result<proto::Job> (Service::*)(const std::string&);

void add_action(Router& router, Service& service, const std::string& method,
                const std::string& suffix, const std::string& summary, Action action) {
  Route route;
  route.method = method;
  route.pattern = "/api/v1/jobs/{id}" + suffix;
  route.summary = summary;
  route.response = proto::Job::descriptor();
  route.handler = [&service, action](const Request& request) -> Result<Response> {
    WEFT_ASSIGN_OR_RETURN(proto::Job job, (service.*action)(request.parameter("id")));
    return json_response(job);
  };
  router.add(std::move(route));
}

Route with_body(const std::string& method, const std::string& pattern, const std::string& summary,
                const google::protobuf::Descriptor* request,
                const google::protobuf::Descriptor* response) {
  Route route;
  route.method = method;
  route.pattern = pattern;
  route.summary = summary;
  route.body = BodyKind::kJson;
  route.request = request;
  route.response = response;
  return route;
}

}  // namespace

void add_job_routes(Router& router, Service& service) {
  Route create =
      with_body("POST", "/api/v1/jobs", "Submit a job; the same Idempotency-Key gives the same job",
                proto::JobSpec::descriptor(), proto::Job::descriptor());
  create.success = 201;
  create.takes_idempotency_key = true;
  create.handler = [&service](const Request& request) { return submit(service, request); };
  router.add(std::move(create));

  Route all;
  all.method = "GET";
  all.pattern = "/api/v1/jobs";
  all.summary = "Jobs, a page at a time";
  all.query = {{"state", "one or several states, separated by commas"},
               {"kind", "pretrain, fine_tune or multi_task"},
               {"name", "exactly this name"},
               {"label", "KEY=VALUE; may be repeated, all must fit"},
               {"order", "oldest (default) or newest first"},
               {"after", "`next` of the page before"},
               {"limit", "jobs a page, 1 to 1000, default 100"}};
  all.response = proto::JobPage::descriptor();
  all.handler = [&service](const Request& request) { return list(service, request); };
  router.add(std::move(all));

  Route check = with_body("POST", "/api/v1/jobs/validate",
                          "What submitting this would store, without storing it",
                          proto::JobSpec::descriptor(), proto::JobSpec::descriptor());
  check.handler = [&service](const Request& request) { return validate(service, request); };
  router.add(std::move(check));

  Route planned = with_body("POST", "/api/v1/jobs/plan",
                            "Meshes that a job could run on now: memory, bytes, step time, choice",
                            proto::PlanRequest::descriptor(), proto::JobPlan::descriptor());
  planned.handler = [&service](const Request& request) { return plan(service, request); };
  router.add(std::move(planned));

  Route change = with_body("PATCH", "/api/v1/jobs/{id}", "Change a job's priority",
                           proto::JobPatch::descriptor(), proto::Job::descriptor());
  change.handler = [&service](const Request& request) { return patch(service, request); };
  router.add(std::move(change));

  Route again = with_body("POST", "/api/v1/jobs/{id}/resume",
                          "Queue a paused or failed job again, on another mesh where the body says "
                          "so: of a queued job too",
                          proto::ResumeRequest::descriptor(), proto::Job::descriptor());
  again.body_optional = true;
  again.handler = [&service](const Request& request) { return resume(service, request); };
  router.add(std::move(again));

  Route remove;
  remove.method = "DELETE";
  remove.pattern = "/api/v1/jobs/{id}";
  remove.summary = "Delete a finished job with its events, metrics, logs and checkpoints";
  remove.success = 204;
  remove.handler = [&service](const Request& request) -> Result<Response> {
    WEFT_RETURN_IF_ERROR(service.remove(request.parameter("id")));
    return empty_response();
  };
  router.add(std::move(remove));

  add_action(router, service, "GET", "", "A job", &Service::job);
  add_action(router, service, "POST", "/cancel", "Cancel a job, after a last checkpoint",
             &Service::cancel);
  add_action(router, service, "POST", "/pause", "Write a checkpoint and free the slots",
             &Service::pause);
  add_action(router, service, "POST", "/checkpoint", "Write a checkpoint and go on",
             &Service::checkpoint_now);
}

}  // namespace weft::api
