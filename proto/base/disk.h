// The room on a disk, for messages. Thread safety: any thread.
#pragma once

#include <string>

namespace weft {

// "3 of 400 MiB free at PATH", of the disk that `path` lies on.
std::string room_at(const std::string& path);

}  // namespace weft
