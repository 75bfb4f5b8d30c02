// The key of random numbers as a kernel gets it. The seed may be one that is in device memory when
// the kernel runs, so that a recorded launch draws other numbers each time.
#pragma once

#include <cstdint>

#include "kernels/ops/random.h"

namespace weft::cuda {

struct DeviceKey {
  DeviceKey() = default;
  DeviceKey(RandomKey fixed, const uint64_t* device_seed = nullptr)  // NOLINT: a key as it is
      : key(fixed), seed(device_seed) {}
  RandomKey key;
  const uint64_t* seed = nullptr;  // instead of key.seed; null: none
};

}  // namespace weft::cuda
