// The room on a disk. Thread safety: any thread.
#pragma once

#include <cstdint>
#include <string>

namespace weft {

// Bytes of a disk of `capacity` that chunks leave free, 64 MiB or an eighth: what makes room
// (a removal, a commit that drops old checkpoints) has to write something first.
int64_t kept_free(int64_t capacity);

// "3 of 400 MiB free at PATH", of the disk that `path` lies on.
std::string room_at(const std::string& path);

}  // namespace weft
