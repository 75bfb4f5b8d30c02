// A TCP client that sends exactly the bytes it is given, for requests that no HTTP library would
// send. Thread safety: one thread. Ownership: owns its socket.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

namespace weft::api {

struct RawAnswer {
  int status = 0;  // 0: the connection closed without an answer
  std::string head;
  std::string body;
};

class RawClient {
 public:
  explicit RawClient(int port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    ::inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    const void* raw = &address;
    connected_ = ::connect(socket_, static_cast<const sockaddr*>(raw), sizeof address) == 0;
  }
  ~RawClient() { ::close(socket_); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool connected() const { return connected_; }

  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }

  // Waits up to `ms` for more; false: closed or silent.
  bool read_some(int ms = 10000) {
    pollfd waiting{socket_, POLLIN, 0};
    if (::poll(&waiting, 1, ms) <= 0) return false;
    char piece[65536];
    const ssize_t n = ::recv(socket_, piece, sizeof piece, 0);
    if (n <= 0) return false;
    received_.append(piece, static_cast<size_t>(n));
    return true;
  }

  // Reads until `text` has come; the bytes stay in received().
  bool read_until(std::string_view text) {
    while (received_.find(text) == std::string::npos) {
      if (!read_some()) return false;
    }
    return true;
  }
  const std::string& received() const { return received_; }

  // One answer with a Content-Length (or none).
  RawAnswer answer(bool head_only = false) {
    RawAnswer result;
    if (!read_until("\r\n\r\n")) return result;
    const size_t end = received_.find("\r\n\r\n") + 4;
    result.head = received_.substr(0, end);
    result.status = std::atoi(result.head.c_str() + 9);
    const size_t at = result.head.find("Content-Length: ");
    const size_t size =
        at == std::string::npos || head_only ? 0 : std::strtoul(&result.head[at + 16], nullptr, 10);
    while (received_.size() < end + size && read_some()) {
    }
    result.body = received_.substr(end, size);
    received_.erase(0, end + size);
    return result;
  }

  bool closed() {  // by the peer
    while (read_some()) {
    }
    return true;
  }

 private:
  int socket_;
  bool connected_ = false;
  std::string received_;
};

}  // namespace weft::api
