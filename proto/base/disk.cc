#include "proto/base/disk.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

namespace weft {

int64_t kept_free(int64_t capacity) { return std::min(int64_t{64} << 20, capacity / 8); }

std::string room_at(const std::string& path) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(path, error);
  if (error) return "at " + path;
  return fmt::format("{} of {} MiB free at {}", space.available >> 20, space.capacity >> 20, path);
}

}  // namespace weft
