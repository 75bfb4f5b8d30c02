// Names nlohmann's types without their definition, for headers that only pass them on.
// Thread safety and ownership: none; declarations only.
#pragma once

#include <nlohmann/json_fwd.hpp>
