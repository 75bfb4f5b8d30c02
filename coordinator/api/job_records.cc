// A job's events and metrics, and where its logs are; pages and live streams. Logs: job_logs.cc.

#include "coordinator/api/api.h"
#include "coordinator/api/job_logs.h"
#include "coordinator/api/json_body.h"
#include "coordinator/api/live_stream.h"
#include "proto/api.pb.h"

namespace weft::api {
namespace {

constexpr int kStreamPage = 200;

class EventStream final : public LiveStream {
 public:
  EventStream(Service& service, const std::string& job, int64_t after)
      : LiveStream(service, job, kWatchEvents), after_(after) {}

 private:
  Result<bool> read_new(std::string& out) override {
    WEFT_ASSIGN_OR_RETURN(const auto page, service_.events(job_, after_, kStreamPage));
    for (const proto::JobEvent& event : page.items) {
      append_event(out, std::to_string(event.sequence()), "event", event);
    }
    after_ = page.next;
    return page.more;
  }
  int64_t after_;
};

class MetricStream final : public LiveStream {
 public:
  MetricStream(Service& service, const std::string& job, int64_t after, std::string task)
      : LiveStream(service, job, kWatchMetrics), after_(after), task_(std::move(task)) {}

 private:
  Result<bool> read_new(std::string& out) override {
    WEFT_ASSIGN_OR_RETURN(const auto page, service_.metrics(job_, after_, kStreamPage, task_));
    for (const proto::MetricRecord& record : page.items) {
      append_event(out, std::to_string(record.sequence()), "metric", record);
    }
    after_ = page.next;
    return page.more;
  }
  int64_t after_;
  const std::string task_;
};

Result<Response> events(Service& service, const Request& request) {
  const std::string& job = request.parameter("id");
  WEFT_ASSIGN_OR_RETURN(const int64_t after, stream_start(request));
  if (request.wants_events()) {
    return stream_response(service, request, std::make_unique<EventStream>(service, job, after));
  }
  WEFT_ASSIGN_OR_RETURN(const int64_t limit,
                        query_int(request, "limit", kPageLimitDefault, 1, kPageLimitMax));
  WEFT_ASSIGN_OR_RETURN(auto page, service.events(job, after, static_cast<int>(limit)));
  proto::EventPage body;
  for (proto::JobEvent& event : page.items) *body.add_events() = std::move(event);
  body.set_next(page.next);
  body.set_more(page.more);
  return json_response(body);
}

// That the job has a task of this name; empty: all of them are meant.
Status check_task(Service& service, const std::string& id, const std::string& task) {
  if (task.empty()) return {};
  WEFT_ASSIGN_OR_RETURN(const proto::Job job, service.job(id));
  std::string names;
  for (const proto::TaskSpec& known : job.spec().tasks()) {
    if (known.name() == task) return {};
    names += (names.empty() ? "" : ", ") + known.name();
  }
  return Status::invalid("task", task, "must be one of the job's tasks: " + names);
}

Result<Response> metrics(Service& service, const Request& request) {
  const std::string& job = request.parameter("id");
  const std::string task = query_text(request, "task");
  WEFT_RETURN_IF_ERROR(check_task(service, job, task));
  WEFT_ASSIGN_OR_RETURN(const int64_t after, stream_start(request));
  if (request.wants_events()) {
    return stream_response(service, request,
                           std::make_unique<MetricStream>(service, job, after, task));
  }
  WEFT_ASSIGN_OR_RETURN(const int64_t limit,
                        query_int(request, "limit", kPageLimitDefault, 1, kPageLimitMax));
  WEFT_ASSIGN_OR_RETURN(auto page, service.metrics(job, after, static_cast<int>(limit), task));
  proto::MetricPage body;
  for (proto::MetricRecord& record : page.items) *body.add_metrics() = std::move(record);
  body.set_next(page.next);
  body.set_more(page.more);
  return json_response(body);
}

const QueryParameter kAfter = {"after", "only those after this sequence"};
const QueryParameter kLimit = {"limit", "items a page, 1 to 1000, default 100"};

}  // namespace

void add_job_record_routes(Router& router, Service& service) {
  Route event_route;
  event_route.method = "GET";
  event_route.pattern = "/api/v1/jobs/{id}/events";
  event_route.summary = "What happened to a job, in order";
  event_route.query = {kAfter, kLimit};
  event_route.response = proto::EventPage::descriptor();
  event_route.streams = true;
  event_route.handler = [&service](const Request& request) { return events(service, request); };
  router.add(std::move(event_route));

  Route metric_route;
  metric_route.method = "GET";
  metric_route.pattern = "/api/v1/jobs/{id}/metrics";
  metric_route.summary = "Loss, learning rate, tokens a second, ... of a job's steps, in order";
  metric_route.query = {kAfter, kLimit, {"task", "only this task's"}};
  metric_route.response = proto::MetricPage::descriptor();
  metric_route.streams = true;
  metric_route.handler = [&service](const Request& request) { return metrics(service, request); };
  router.add(std::move(metric_route));

  add_log_routes(router, service);
}

}  // namespace weft::api
