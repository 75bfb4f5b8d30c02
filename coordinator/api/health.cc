#include "coordinator/api/api.h"
#include "coordinator/api/json_body.h"
#include "coordinator/service.h"
#include "proto/api.pb.h"

namespace weft::api {
namespace {

Result<Response> status(Service& service) {
  const Health health = service.health();
  proto::HealthReport report;
  report.set_status(health.ready ? "ok" : "degraded");
  report.set_problem(health.problem);
  report.set_version(health.version);
  report.set_uptime_seconds(health.uptime_seconds);
  report.set_disk_free_bytes(health.disk_free_bytes);
  report.set_chunk_bytes(health.chunk_bytes);
  report.set_nodes_ready(health.nodes_ready);
  report.set_nodes_lost(health.nodes_lost);
  report.mutable_jobs()->insert(health.jobs.begin(), health.jobs.end());
  return json_response(report);
}

}  // namespace

void add_health_routes(Router& router, Service& service) {
  Route live;
  live.method = "GET";
  live.pattern = "/api/v1/health";
  live.summary = "Whether the coordinator answers and its store accepts writes; needs no token";
  live.response = proto::Liveness::descriptor();
  live.open = true;
  live.handler = [&service](const Request&) -> Result<Response> {
    const bool ready = service.health().ready;
    proto::Liveness body;
    body.set_status(ready ? "ok" : "degraded");
    return json_response(body, ready ? 200 : 503);
  };
  router.add(std::move(live));

  Route report;
  report.method = "GET";
  report.pattern = "/api/v1/status";
  report.summary = "Version, disk, nodes and counts of jobs";
  report.response = proto::HealthReport::descriptor();
  report.handler = [&service](const Request&) { return status(service); };
  router.add(std::move(report));
}

}  // namespace weft::api
