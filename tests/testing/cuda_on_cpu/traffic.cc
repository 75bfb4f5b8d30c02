#include "tests/testing/cuda_on_cpu/traffic.h"

#include <cstring>
#include <utility>

namespace weft::cuda_on_cpu {
namespace {

ArrivalCount& count_of(void* barrier, const Where& where) {
  check_shared(barrier, sizeof(uint64_t), where);
  const auto found = block_traffic().barriers.find(barrier);
  if (found == block_traffic().barriers.end()) {
    throw Fault(line_of(where) + ": a barrier object that was not initialized");
  }
  return found->second;
}

void end_phase_if_complete(ArrivalCount& count) {
  if (count.missing != 0 || count.bytes != 0) return;
  count.missing = count.expected;
  count.phase = !count.phase;
}

template <typename Groups, typename Act>
void retire(Groups& groups, int groups_left, const Act& act) {
  while (groups.size() > static_cast<size_t>(groups_left)) {
    for (const auto& item : groups.front()) act(item);
    groups.pop_front();
  }
}

}  // namespace

void Arrival::happen() const { std::memcpy(to, bytes.data(), bytes.size()); }

void copy_async(void* to_shared, const void* from, int bytes, int size, const Where& where) {
  check_shared(to_shared, static_cast<size_t>(size), where);
  const auto address = reinterpret_cast<uintptr_t>(to_shared);
  const bool aligned =
      address % static_cast<size_t>(size) == 0 &&
      (bytes == 0 || reinterpret_cast<uintptr_t>(from) % static_cast<size_t>(size) == 0);
  if (!aligned) throw Fault(line_of(where) + ": an asynchronous copy that is not aligned");
  Arrival arrival{static_cast<std::byte*>(to_shared),
                  std::vector<std::byte>(static_cast<size_t>(size))};
  if (bytes > 0) std::memcpy(arrival.bytes.data(), from, static_cast<size_t>(bytes));
  std::memset(to_shared, kPoison, static_cast<size_t>(size));
  thread_traffic().open.push_back(std::move(arrival));
}

void copy_async_commit() {
  ThreadTraffic& traffic = thread_traffic();
  traffic.groups.push_back(std::exchange(traffic.open, {}));
}

void copy_async_wait(int groups_left) {
  retire(thread_traffic().groups, groups_left, [](const Arrival& arrival) { arrival.happen(); });
}

void barrier_init(void* barrier, unsigned arrivals, const Where& where) {
  check_shared(barrier, sizeof(uint64_t), where);
  block_traffic().barriers[barrier] = {.expected = arrivals, .missing = arrivals};
}

void barrier_arrive(void* barrier, int64_t bytes, const Where& where) {
  ArrivalCount& count = count_of(barrier, where);
  if (count.missing == 0) {
    throw Fault(line_of(where) + ": an arrival more than the barrier object expects");
  }
  --count.missing;
  count.bytes += bytes;
  end_phase_if_complete(count);
}

void barrier_wait(void* barrier, bool parity, const Where& where) {
  ArrivalCount& count = count_of(barrier, where);
  if (count.phase != parity) return;
  wait_until(
      [&count, parity] {
        if (count.phase != parity) return true;
        if (count.missing != 0) return false;
        for (const Arrival& arrival : std::exchange(count.copies, {})) {
          arrival.happen();
          count.bytes -= static_cast<int64_t>(arrival.bytes.size());
        }
        end_phase_if_complete(count);
        return count.phase != parity;
      },
      where);
}

void copy_bulk(void* to_shared, std::vector<std::byte> bytes, void* barrier, const Where& where) {
  check_shared(to_shared, bytes.size(), where);
  ArrivalCount& count = count_of(barrier, where);
  std::memset(to_shared, kPoison, bytes.size());
  count.copies.push_back({static_cast<std::byte*>(to_shared), std::move(bytes)});
}

void product_start(std::function<void()> product) {
  thread_traffic().open_products.push_back(std::move(product));
}

void product_commit() {
  ThreadTraffic& traffic = thread_traffic();
  traffic.product_groups.push_back(std::exchange(traffic.open_products, {}));
}

void product_wait(int groups_left) {
  retire(thread_traffic().product_groups, groups_left,
         [](const std::function<void()>& product) { product(); });
}

}  // namespace weft::cuda_on_cpu
