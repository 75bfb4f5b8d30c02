#include "tests/testing/rank_runner.h"

namespace weft::testing {

void run_ranks(int n, const std::function<void(Rank&)>& body) { run_mesh({.data = n}, body); }

void run_mesh(MeshDegrees degrees, const std::function<void(Rank&)>& body, const PlaceRank& place) {
  run_on_threads(degrees, body, place);
}

}  // namespace weft::testing
