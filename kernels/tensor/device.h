// Where memory lies and work runs.
// Thread safety: a value.
#pragma once

#include <cstdint>
#include <string>

namespace weft {

enum class DeviceKind : uint8_t { kCpu, kCuda };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;  // which GPU of this process; 0 for the CPU

  bool is_cpu() const { return kind == DeviceKind::kCpu; }
  bool operator==(const Device&) const = default;
  // "cpu", "cuda:1"
  std::string to_string() const { return is_cpu() ? "cpu" : "cuda:" + std::to_string(index); }
};

}  // namespace weft
