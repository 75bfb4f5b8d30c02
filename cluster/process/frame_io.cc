#include "cluster/process/frame_io.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace weft {

namespace {

// Of a frame the length, which the bytes follow.
std::string length_of(size_t size) {
  std::string frame;
  for (int shift = 24; shift >= 0; shift -= 8) {
    frame.push_back(static_cast<char>((size >> shift) & 0xff));
  }
  return frame;
}

void append_varint(uint64_t value, std::string& to) {
  for (; value >= 0x80; value >>= 7) to.push_back(static_cast<char>(value | 0x80));
  to.push_back(static_cast<char>(value));
}

// What stands before the bytes of a field of bytes or of a message.
void append_head(int field, size_t size, std::string& to) {
  constexpr uint64_t kOfBytes = 2;  // wire type
  append_varint(static_cast<uint64_t>(field) << 3 | kOfBytes, to);
  append_varint(size, to);
}

}  // namespace

std::string framed(const google::protobuf::MessageLite& message) {
  const size_t size = message.ByteSizeLong();
  std::string frame = length_of(size);
  frame.reserve(frame.size() + size);
  message.AppendToString(&frame);
  return frame;
}

// Fields of a message may stand in any order, so the data come last.
std::string head_of_chunk(const proto::RankChunkPut& put, size_t data) {
  std::string inner = put.SerializeAsString(), outer;
  append_head(proto::RankChunkPut::kDataFieldNumber, data, inner);
  append_head(proto::RankFrame::kChunkPutFieldNumber, inner.size() + data, outer);
  return length_of(outer.size() + inner.size() + data).append(outer).append(inner);
}

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

namespace {

bool read_exactly(int fd, char* into, size_t count) {
  while (count > 0) {
    const ssize_t got = ::recv(fd, into, count, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    into += got;
    count -= static_cast<size_t>(got);
  }
  return true;
}

}  // namespace

std::optional<std::string> read_frame(int fd) {
  std::array<char, 4> header{};
  if (!read_exactly(fd, header.data(), header.size())) return std::nullopt;
  size_t length = 0;
  for (const char byte : header) length = length << 8 | static_cast<unsigned char>(byte);
  if (length > kRankFrameBytesMax) return std::nullopt;
  std::string bytes(length, '\0');
  if (!read_exactly(fd, bytes.data(), length)) return std::nullopt;
  return bytes;
}

int connect_unix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int why = errno;
    ::close(fd);
    errno = why;
    return -1;
  }
  return fd;
}

}  // namespace weft
