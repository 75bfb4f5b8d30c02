#include "cluster/comm/threads/thread_ranks.h"

#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "cluster/comm/threads/thread_world.h"

namespace weft {

void run_on_threads(MeshDegrees degrees, const std::function<void(Rank&)>& body,
                    const PlaceRank& place) {
  const int size = static_cast<int>(degrees.world());
  comm::ThreadWorld world(size);
  std::mutex mutex;
  std::exception_ptr first;
  const auto keep = [&] {
    const std::lock_guard lock(mutex);
    if (!first) first = std::current_exception();
  };
  const auto work = [&](std::unique_ptr<Communicator> communicator) {
    try {
      RankPlace placed = place ? place(std::move(communicator))
                               : RankPlace{make_caching_allocator(), std::move(communicator)};
      Result<Mesh> mesh = Mesh::create(std::move(placed.world), degrees);
      if (!mesh) throw StatusError(mesh.error());
      Rank rank{std::move(placed.memory), std::make_unique<ThreadPool>(1), std::move(*mesh),
                Logger()};
      // Kept before the rank is gone: peers that miss it fail too, but later.
      try {
        body(rank);
      } catch (...) {
        keep();
        throw;
      }
    } catch (const std::exception& error) {
      keep();
      world.fail(error.what());
    }
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) threads.emplace_back(work, world.take(rank));
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace weft
