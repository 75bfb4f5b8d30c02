// The REST API: the routes over a Service. `ApiServer::start(options, make_router(service),
// logger)` serves them.
//
// Thread safety: the routes' handlers may run on several threads. Ownership: the service outlives
// the router and every server it was given to.
#pragma once

#include "coordinator/api/router.h"

namespace weft {
class Service;
}

namespace weft::api {

Router make_router(Service& service);

// One a resource; make_router calls them all.
void add_job_routes(Router& router, Service& service);
void add_job_record_routes(Router& router, Service& service);  // events, metrics, logs
void add_inspect_routes(Router& router, Service& service);     // what ranks do, traces
void add_checkpoint_routes(Router& router, Service& service);
void add_upload_routes(Router& router, Service& service);
void add_node_routes(Router& router, Service& service);
void add_health_routes(Router& router, Service& service);
void add_openapi_route(Router& router);  // last: it describes the others

}  // namespace weft::api
