// Copies that are on their way into shared memory, and products that are on their way into
// registers. Each is as late as it may be: where it will arrive lies poison until the wait that
// covers it has returned, so a wait that is missing, or for an older stage, shows in the results;
// so does a stage that is filled again before its readers are done.
//
// cp.async: a thread's own copies, in groups. Bulk copies (the tensor map's, cp.async.bulk.tensor):
// of the block, counted by a barrier object in shared memory (mbarrier). wgmma: of the warp group,
// in groups; its operands are read when it starts and when it is waited for, and what is not the
// same then makes NaN.
//
// Thread safety: none; called by the running thread of the machine.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "tests/testing/cuda_on_cpu/machine.h"

namespace weft::cuda_on_cpu {

struct Arrival {
  std::byte* to;
  std::vector<std::byte> bytes;
  void happen() const;
};

struct ThreadTraffic {
  std::vector<Arrival> open;                // copies of no group yet
  std::deque<std::vector<Arrival>> groups;  // committed, oldest first
  // Products that are computed when they are waited for; of a warp's first thread only.
  std::vector<std::function<void()>> open_products;
  std::deque<std::vector<std::function<void()>>> product_groups;
  std::map<const void*, std::shared_ptr<void>> sums_under_way;  // by where they will be
  bool fenced = false;                                          // since the last wait for products
};

// The state of an mbarrier object, kept beside the 64 bits that stand for it.
struct ArrivalCount {
  unsigned expected = 0, missing = 0;  // arrivals of a phase; those still to come in this one
  int64_t bytes = 0;                   // still to come in this phase
  bool phase = false;                  // the parity of the running phase
  std::vector<Arrival> copies;         // that will arrive in this phase
};
struct BlockTraffic {
  std::map<const void*, ArrivalCount> barriers;
};

// ---- cp.async: `size` bytes, those past the first `bytes` zero.
void copy_async(void* to_shared, const void* from, int bytes, int size, const Where& where);
void copy_async_commit();
void copy_async_wait(int groups_left);

// ---- mbarrier
void barrier_init(void* barrier, unsigned arrivals, const Where& where);
// One arrival, and `bytes` more to come in this phase.
void barrier_arrive(void* barrier, int64_t bytes, const Where& where);
// Until the phase of that parity has ended. An object starts in phase 0.
void barrier_wait(void* barrier, bool parity, const Where& where);
// A copy that the barrier's running phase counts.
void copy_bulk(void* to_shared, std::vector<std::byte> bytes, void* barrier, const Where& where);

// ---- wgmma
void product_start(std::function<void()> product);  // a warp's first thread
void product_commit();
void product_wait(int groups_left);

}  // namespace weft::cuda_on_cpu
