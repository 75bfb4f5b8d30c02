// The communicator of a world of one: every collective is a copy, or nothing.
#pragma once

#include <memory>

#include "worker/parallel/communicator.h"

namespace weft::comm {

std::unique_ptr<Communicator> single_world();

}  // namespace weft::comm
