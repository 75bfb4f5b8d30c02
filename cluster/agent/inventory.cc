#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "cluster/agent/gpu_figures.h"
#include "cluster/agent/options.h"
#include "proto/base/hash.h"
#include "worker/planner/probe.h"

namespace weft {
namespace {

std::string text_of(in_addr address) {
  std::array<char, INET_ADDRSTRLEN> text{};
  ::inet_ntop(AF_INET, &address, text.data(), text.size());
  return text.data();
}

// The address that packets to `host` leave from. No packet is sent.
std::optional<std::string> address_facing(const std::string& host) {
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), "9", &hints, &found) != 0) return std::nullopt;
  std::optional<std::string> address;
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && ::connect(fd, found->ai_addr, found->ai_addrlen) == 0) {
    sockaddr_in own{};
    socklen_t size = sizeof own;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size) == 0) {
      address = text_of(own.sin_addr);
    }
  }
  if (fd >= 0) ::close(fd);
  ::freeaddrinfo(found);
  return address;
}

struct Network {
  std::string cidr;       // "10.0.0.0/24"
  std::string interface;  // "eth0"
};

// That of the interface that has the address.
std::optional<Network> network_of(const std::string& address) {
  in_addr wanted{};
  if (::inet_pton(AF_INET, address.c_str(), &wanted) != 1) return std::nullopt;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return std::nullopt;
  std::optional<Network> network;
  for (const ifaddrs* each = list; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr || each->ifa_addr->sa_family != AF_INET) continue;
    if (each->ifa_netmask == nullptr) continue;
    const auto own = reinterpret_cast<const sockaddr_in*>(each->ifa_addr)->sin_addr;
    const auto mask = reinterpret_cast<const sockaddr_in*>(each->ifa_netmask)->sin_addr;
    if ((own.s_addr & mask.s_addr) != (wanted.s_addr & mask.s_addr)) continue;
    const bool loopback = (ntohl(wanted.s_addr) >> 24) == 127;
    if (own.s_addr != wanted.s_addr && !loopback) continue;
    network = {
        text_of({wanted.s_addr & mask.s_addr}) + "/" + std::to_string(std::popcount(mask.s_addr)),
        each->ifa_name};
    break;
  }
  ::freeifaddrs(list);
  return network;
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) {
      const size_t at = line.find(": ");
      return at == std::string::npos ? "" : line.substr(at + 2);
    }
  }
  return "";
}

constexpr double kLoopbackBytes = 2e9;  // a second, of TCP within a machine

// Bytes a second, as the driver says; 0: it does not (virtual interfaces).
double link_speed(const std::string& interface) {
  if (interface == "lo") return kLoopbackBytes;
  std::ifstream file("/sys/class/net/" + interface + "/speed");
  double megabits = 0;
  return file >> megabits && megabits > 0 ? megabits * 1e6 / 8 : 0;
}

}  // namespace

void measure_disk(const std::string& folder, proto::NodeInfo& node) {
  struct statvfs info {};
  if (::statvfs(folder.c_str(), &info) != 0) return;
  node.set_disk_free_bytes(static_cast<int64_t>(info.f_bavail * info.f_frsize));
  node.set_disk_bytes(static_cast<int64_t>(info.f_blocks * info.f_frsize));
}

Result<proto::NodeInfo> take_inventory(const AgentOptions& options, const AgentPlaces& places) {
  proto::NodeInfo node;
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  node.set_name(options.name.empty() ? host.data() : options.name);
  node.set_state(proto::NODE_STATE_READY);
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  node.set_cores(cores);
  const int gpus = static_cast<int>(places.gpus.size());
  node.set_gpus(gpus);
  if (gpus > 0) fill_gpu_figures(gpu_figures(places.gpus), node);
  // A rank that computes on a GPU has one to itself.
  const int on_cpu = options.cpu_slots > 0 ? options.cpu_slots : cores;
  node.set_slots(options.slots > 0 ? options.slots : places.on_gpus ? gpus : on_cpu);
  node.set_gpus_unused(places.gpus_unused);
  if (node.slots() < gpus) {
    node.set_gpus_unused(fmt::format("{} of {} GPUs are left idle: the slots are {}",
                                     gpus - node.slots(), gpus, node.slots()));
  }
  const int64_t memory = machine_memory_bytes();
  node.set_memory_bytes(options.memory_bytes > 0 ? std::min(options.memory_bytes, memory) : memory);
  measure_disk(places.attempts, node);
  node.set_version(WEFT_VERSION);
  node.set_cpu(cpu_name());
  node.set_session(random_hex(8));
  node.set_address(options.address.empty()
                       ? address_facing(options.coordinator_host).value_or("127.0.0.1")
                       : options.address);
  const auto network = network_of(node.address());
  if (!network) {
    return fail(
        Status::invalid("address", node.address(), "must be an IPv4 address of this machine"));
  }
  node.set_subnet_cidr(options.subnet.empty() ? network->cidr : options.subnet);
  const HostSpeed speed = measure_speed();
  node.set_flops_per_core(speed.flops);
  node.set_half_flops_per_core(speed.half_flops);
  node.set_copy_bytes_per_second(speed.memory);
  node.set_link_bytes_per_second(link_speed(network->interface));
  return node;
}

}  // namespace weft
