// Memory of this machine: how much there is, how much a process may take, who goes first.
#include <malloc.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <new>
#include <string_view>

#include "cluster/process/process.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

// The smallest number that files of this name hold, from the cgroup's folder up to the root;
// "max" and absent files say nothing.
int64_t least_limit(const fs::path& root, const fs::path& group, const char* name, int64_t most) {
  for (fs::path at = group.relative_path();; at = at.parent_path()) {
    std::ifstream file(root / at / name);
    if (int64_t bytes = 0; file >> bytes) most = std::min(most, bytes);
    if (at.empty()) return most;
  }
}

// A line of /proc/self/status, "VmData:   1234 kB"; 0: there is none.
int64_t own_status_bytes(std::string_view name) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name)) return int64_t{1024} * std::atoll(line.c_str() + name.size());
  }
  return 0;
}

// Less than malloc maps apart: once freed, any thread is given parts of it.
constexpr size_t kRoomForFailures = size_t{64} << 10;
std::atomic<void*> room_for_failures;

[[noreturn]] void refuse() {
  std::free(room_for_failures.exchange(nullptr));
  throw std::bad_alloc();
}

}  // namespace

void offer_to_oom_killer() { std::ofstream("/proc/self/oom_score_adj") << 1000; }

int64_t oom_kills() {
  std::ifstream file("/proc/vmstat");
  std::string name;
  for (int64_t count = 0; file >> name >> count;) {
    if (name == "oom_kill") return count;
  }
  return 0;
}

int64_t machine_memory_bytes() {
  int64_t bytes = int64_t{::sysconf(_SC_PHYS_PAGES)} * int64_t{::sysconf(_SC_PAGESIZE)};
  std::ifstream groups("/proc/self/cgroup");  // "4:memory:/path", "0::/path"
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string kind = line.substr(first + 1, second - first - 1);
    const fs::path group = line.substr(second + 1);
    if (kind.empty()) bytes = least_limit("/sys/fs/cgroup", group, "memory.max", bytes);
    if (kind == "memory") {
      bytes = least_limit("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes", bytes);
    }
  }
  return bytes;
}

int64_t data_bytes() { return own_status_bytes("VmData:"); }

int64_t unused_memory_bytes() {
  return std::max<int64_t>(0, data_bytes() - own_status_bytes("RssAnon:"));
}

void make_stacks_small() {
  constexpr size_t kStackBytes = size_t{1} << 20;
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, kStackBytes);
  ::pthread_setattr_default_np(&attributes);
  ::pthread_attr_destroy(&attributes);
}

void give_back_large_blocks() {
  ::mallopt(M_MMAP_THRESHOLD, 4 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 8 << 20);
}

void keep_room_for_failures() {
  room_for_failures = std::malloc(kRoomForFailures);
  std::set_new_handler(refuse);
}

void limit_memory(int64_t bytes) {
  rlimit limit{};
  if (bytes <= 0 || ::getrlimit(RLIMIT_DATA, &limit) != 0) return;
  const int64_t counted = bytes + unused_memory_bytes();
  limit.rlim_cur = std::min(limit.rlim_max, static_cast<rlim_t>(counted));
  ::setrlimit(RLIMIT_DATA, &limit);
}

}  // namespace weft
