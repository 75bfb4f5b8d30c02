// A job's logs as the ranks wrote them, by attempt and rank; pages and live streams.
// Thread safety and ownership: as api.h.
#pragma once

#include "coordinator/api/router.h"

namespace weft {
class Service;
}

namespace weft::api {

void add_log_routes(Router& router, Service& service);

}  // namespace weft::api
