#include "tests/testing/rank_runner.h"

#include "cluster/comm/threads/thread_ranks.h"

namespace weft::testing {

void run_ranks(int n, const std::function<void(Rank&)>& body) { run_mesh({.data = n}, body); }

void run_mesh(MeshDegrees degrees, const std::function<void(Rank&)>& body) {
  run_on_threads(degrees, body);
}

}  // namespace weft::testing
