#include "proto/base/disk.h"

#include <fmt/format.h>

#include <filesystem>

namespace weft {

std::string room_at(const std::string& path) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(path, error);
  if (error) return "at " + path;
  return fmt::format("{} of {} MiB free at {}", space.available >> 20, space.capacity >> 20, path);
}

}  // namespace weft
