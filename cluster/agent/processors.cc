#include "cluster/agent/processors.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <tuple>
#include <utility>

namespace weft {
namespace {

// Of the PID namespace that the system starts in (Linux, include/linux/proc_ns.h).
constexpr ino_t kFirstPidNamespace = 0xEFFFFFFC;

bool in_container() {
  struct stat info {};
  return ::stat("/proc/self/ns/pid", &info) == 0 && info.st_ino != kFirstPidNamespace;
}

int number_in(const std::string& path) {
  std::ifstream file(path);
  int number = 0;
  return file >> number ? number : 0;
}

// A lock of this open file, not of the process.
struct flock whole_file(int16_t type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

}  // namespace

std::vector<Processor> own_processors() {
  cpu_set_t ours;
  CPU_ZERO(&ours);
  std::vector<Processor> found;
  if (::sched_getaffinity(0, sizeof ours, &ours) != 0) return found;
  if (in_container() && CPU_COUNT(&ours) >= ::sysconf(_SC_NPROCESSORS_ONLN)) return found;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(static_cast<size_t>(cpu), &ours)) continue;
    const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    found.push_back(
        {cpu, number_in(folder + "physical_package_id"), number_in(folder + "core_id")});
  }
  std::sort(found.begin(), found.end(), [](const Processor& a, const Processor& b) {
    return std::tie(a.package, a.core, a.number) < std::tie(b.package, b.core, b.number);
  });
  return found;
}

std::vector<int> processors_of_slot(const std::vector<Processor>& all, int slots, int slot,
                                    int threads) {
  const size_t run = slots > 0 ? all.size() / static_cast<size_t>(slots) : 0;
  if (slot < 0 || slot >= slots || threads < 1 || run < static_cast<size_t>(threads)) return {};
  // By how many of its core come before it.
  std::multimap<int, int> by_turn;
  std::map<std::pair<int, int>, int> of_core;
  for (size_t i = run * static_cast<size_t>(slot); i < run * static_cast<size_t>(slot + 1); ++i) {
    by_turn.emplace(of_core[{all[i].package, all[i].core}]++, all[i].number);
  }
  std::vector<int> chosen;
  for (const auto& [turn, number] : by_turn) {
    if (static_cast<int>(chosen.size()) < threads) chosen.push_back(number);
  }
  return chosen;
}

Result<AgentsOfMachine> AgentsOfMachine::join(const std::string& folder) {
  const std::string path = folder + "/agents.lock";
  AgentsOfMachine agents;
  agents.fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  struct flock lock = whole_file(F_RDLCK);
  if (agents.fd_ < 0 || ::fcntl(agents.fd_, F_OFD_SETLK, &lock) != 0) {
    return fail(Code::kUnavailable, "cannot lock " + path + ": " + std::strerror(errno));
  }
  return agents;
}

bool AgentsOfMachine::alone() const {
  if (fd_ < 0) return false;
  struct flock other = whole_file(F_WRLCK);  // what would stand in its way
  return ::fcntl(fd_, F_OFD_GETLK, &other) == 0 && other.l_type == F_UNLCK;
}

}  // namespace weft
