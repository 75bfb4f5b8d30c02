#include "tests/kernels/cuda/schedule.h"
#include "tests/testing/cuda_on_cpu/machine.h"

namespace weft {

void vary_schedule(uint64_t number) {
  cuda_on_cpu::set_schedule(
      {number % 2 == 0 ? cuda_on_cpu::Order::kReverse : cuda_on_cpu::Order::kSeeded, number});
}

}  // namespace weft
