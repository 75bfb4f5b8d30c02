#include "kernels/cpu/level.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>
#include <utility>

#include "proto/base/status.h"

namespace weft::cpu {
namespace {

constexpr std::array<std::pair<std::string_view, Level>, 5> kLevels{{{"amx", Level::kAmx},
                                                                     {"bf16", Level::kBf16},
                                                                     {"v4", Level::kV4},
                                                                     {"v3", Level::kV3},
                                                                     {"v2", Level::kV2}}};

// Linux saves tiles only of processes that have asked for them (Documentation/arch/x86/xstate.rst).
bool tiles_permitted() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  static const bool permitted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return permitted;
}

}  // namespace

bool supported(Level level) {
  switch (level) {
    case Level::kAmx:
      return supported(Level::kBf16) && __builtin_cpu_supports("amx-tile") &&
             __builtin_cpu_supports("amx-bf16") && tiles_permitted();
    case Level::kBf16:
      return __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512bf16");
    case Level::kV4:
      return __builtin_cpu_supports("x86-64-v4");
    case Level::kV3:
      return __builtin_cpu_supports("x86-64-v3");
    case Level::kV2:
      break;
  }
  return true;
}

Level level_of(std::string_view name) {
  for (const auto& [known, level] : kLevels) {
    if (name.empty() ? supported(level) : name == known) {
      if (supported(level)) return level;
      throw StatusError(Status::invalid("WEFT_CPU_LEVEL", std::string(name),
                                        "must name instructions that this processor has and "
                                        "the system permits"));
    }
  }
  throw StatusError(
      Status::invalid("WEFT_CPU_LEVEL", std::string(name), "must be v2, v3, v4, bf16 or amx"));
}

std::string_view name_of(Level level) {
  return std::ranges::find(kLevels, level, &std::pair<std::string_view, Level>::second)->first;
}

Level level() {
  static const Level found = [] {
    const char* name = std::getenv("WEFT_CPU_LEVEL");
    return level_of(name == nullptr ? "" : name);
  }();
  return found;
}

}  // namespace weft::cpu
