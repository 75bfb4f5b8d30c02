#include "cluster/process/frame_io.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace weft {

std::string framed(const google::protobuf::MessageLite& message) {
  const size_t size = message.ByteSizeLong();
  std::string frame;
  frame.reserve(size + 4);
  for (int shift = 24; shift >= 0; shift -= 8) {
    frame.push_back(static_cast<char>((size >> shift) & 0xff));
  }
  message.AppendToString(&frame);
  return frame;
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
