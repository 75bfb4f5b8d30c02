// The order in which a schedule takes what could go next.
//
// Thread safety: none. Invariants: 1. the same schedule gives the same orders.
#pragma once

#include <utility>
#include <vector>

#include "tests/testing/cuda_on_cpu/machine.h"

namespace weft::cuda_on_cpu {

class Shuffler {
 public:
  explicit Shuffler(const Schedule& schedule) : schedule_(schedule), state_(schedule.seed) {}
  std::vector<size_t> order_of(size_t n) {
    std::vector<size_t> order;
    put_order_of(n, order);
    return order;
  }
  void put_order_of(size_t n, std::vector<size_t>& order) {
    order.resize(n);
    for (size_t i = 0; i < n; ++i) order[i] = schedule_.order == Order::kReverse ? n - 1 - i : i;
    if (schedule_.order == Order::kSeeded) {
      for (size_t i = n; i > 1; --i) std::swap(order[i - 1], order[next() % i]);
    }
  }
  // The first, or any if seeded.
  size_t choose(size_t n) { return schedule_.order == Order::kSeeded ? next() % n : 0; }

 private:
  uint64_t next() {  // SplitMix64 (Steele et al. 2014)
    uint64_t x = state_ += 0x9E3779B97F4A7C15;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
    return x ^ (x >> 31);
  }
  const Schedule schedule_;
  uint64_t state_;
};

}  // namespace weft::cuda_on_cpu
