#include "tests/gpu/topology_sizes.h"

namespace weft::gpu {

std::vector<TopologySize> topology_sizes() { return {{"Fibers", 1, 4, 32, 8, 2, 4, 0}}; }

}  // namespace weft::gpu
