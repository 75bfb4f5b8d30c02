// Whole frames (4 bytes big-endian length, then the bytes) on a blocking file descriptor.
#pragma once

#include <google/protobuf/message_lite.h>

#include <optional>
#include <string>
#include <string_view>

#include "proto/train.pb.h"

namespace weft {

inline constexpr size_t kRankFrameBytesMax = size_t{16} << 20;

std::string framed(const google::protobuf::MessageLite& message);
// How the frame of a RankFrame with `put` begins, whose data are so many bytes: they follow.
std::string head_of_chunk(const proto::RankChunkPut& put, size_t data);
// False: the peer is gone.
bool write_all(int fd, std::string_view bytes);
// nullopt: the peer is gone, or announced more than kRankFrameBytesMax.
std::optional<std::string> read_frame(int fd);

// A connected unix stream socket, -1 if nobody listens there (errno says why).
int connect_unix(const std::string& path);

}  // namespace weft
