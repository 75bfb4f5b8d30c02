// docs/reference/rest.md, written from the table of routes and the schema's rules.
// Thread safety: pure function.
#pragma once

#include <string>

#include "coordinator/api/router.h"

namespace weft::api {

std::string rest_reference(const Router& router);

}  // namespace weft::api
