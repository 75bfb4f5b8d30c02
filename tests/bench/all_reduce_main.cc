// weft-bench-all-reduce bytes=N under mpirun: as weft-bench, with rank 0 taking the lines, which
// are "ours N" or "peer N" and are answered with the median of N runs; the peer is MPI_Allreduce.
// One job for both: a waiting rank spins.
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "cluster/comm/mpi/mpi_world.h"

namespace weft {
namespace {

enum Side : int64_t { kEnd = 0, kOurs = 1, kPeer = 2 };

struct Request {
  int64_t side = kEnd, rounds = 0;
};

Request read_request() {
  std::string side;
  Request request;
  if (std::cin >> side >> request.rounds) request.side = side == "ours" ? kOurs : kPeer;
  return request;
}

// Rank 0's lines on every rank.
Request next_request(Communicator& world, Allocator& allocator) {
  Tensor words = Tensor::zeros(allocator, {2}, DType::kI64);
  if (world.rank() == 0) {
    const Request request = read_request();
    words.data<int64_t>()[0] = request.side;
    words.data<int64_t>()[1] = request.rounds;
  }
  world.broadcast(words, 0);
  return {words.data<int64_t>()[0], words.data<int64_t>()[1]};
}

int run(int64_t bytes) {
  auto mpi = comm::MpiWorld::create();
  if (!mpi) return 1;
  const auto allocator = make_caching_allocator();
  const auto world = (*mpi)->world();
  Tensor tensor = Tensor::zeros(*allocator, {bytes / 4});
  const auto reduce = [&](int64_t side) {
    if (side == kOurs) {
      world->all_reduce(tensor, ReduceOp::kSum);
    } else {
      (*mpi)->call([&] {
        MPI_Allreduce(MPI_IN_PLACE, tensor.raw(), static_cast<int>(bytes / 4), MPI_FLOAT, MPI_SUM,
                      MPI_COMM_WORLD);
      });
    }
  };
  for (int i = 0; i < 10; ++i) reduce(i % 2 == 0 ? kOurs : kPeer);
  if (world->rank() == 0) std::puts("ready");
  for (;;) {
    std::fflush(stdout);
    const Request request = next_request(*world, *allocator);
    if (request.side == kEnd) return 0;
    world->barrier();
    std::vector<double> times;
    for (int64_t i = 0; i < request.rounds; ++i) {
      const auto start = std::chrono::steady_clock::now();
      reduce(request.side);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      times.push_back(took.count());
    }
    std::sort(times.begin(), times.end());
    if (world->rank() == 0) std::printf("%.9g\n", times[times.size() / 2]);
  }
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) {
  const std::string size = argc == 2 ? argv[1] : "";
  if (!size.starts_with("bytes=")) {
    std::fputs("usage: mpirun -n 2 weft-bench-all-reduce bytes=N\n", stderr);
    return 2;
  }
  return weft::run(std::stoll(size.substr(6)));
}
