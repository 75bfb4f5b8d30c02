// all_reduce of f32 over our MPI communicator against MPI_Allreduce: ninja -C build/release
// cluster_comm_bench, mpirun -n 2 build/release/bin/cluster_comm_bench. One line a size: bytes,
// median microseconds of each, ratio (below 1: ours is faster).
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <vector>

#include "cluster/comm/mpi/mpi_world.h"

namespace weft {
namespace {

double median_us(Communicator& world, int rounds, const std::function<void()>& body) {
  std::vector<double> times;
  for (int i = 0; i < rounds; ++i) {
    world.barrier();
    const auto start = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
    times.push_back(took.count());
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

int run() {
  auto mpi = comm::MpiWorld::create();
  if (!mpi) return 1;
  const auto allocator = make_caching_allocator();
  const auto world = (*mpi)->world();
  for (int64_t bytes : {int64_t{4} << 10, int64_t{64} << 10, int64_t{1} << 20, int64_t{16} << 20}) {
    Tensor tensor = Tensor::zeros(*allocator, {bytes / 4});
    const int rounds = bytes > (4 << 20) ? 30 : 150;
    double ours = 1e30, theirs = 1e30;
    for (int turn = 0; turn < 3; ++turn) {
      ours = std::min(
          ours, median_us(*world, rounds, [&] { world->all_reduce(tensor, ReduceOp::kSum); }));
      theirs = std::min(theirs, median_us(*world, rounds, [&] {
                          (*mpi)->call([&] {
                            MPI_Allreduce(MPI_IN_PLACE, tensor.raw(), static_cast<int>(bytes / 4),
                                          MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
                          });
                        }));
    }
    if (world->rank() == 0) {
      std::printf("all_reduce %9lld bytes  ours %9.1f us  MPI_Allreduce %9.1f us  ratio %.2f\n",
                  static_cast<long long>(bytes), ours, theirs, ours / theirs);
    }
  }
  return 0;
}

}  // namespace
}  // namespace weft

int main() { return weft::run(); }
