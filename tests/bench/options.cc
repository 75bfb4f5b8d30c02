#include <sched.h>

#include <cstdlib>
#include <fstream>

#include "proto/base/status.h"
#include "tests/bench/bench.h"

namespace weft::bench {

Options::Options(int count, char** texts) {
  for (int i = 0; i < count; ++i) {
    const std::string text = texts[i];
    const size_t equals = text.find('=');
    if (equals == std::string::npos) {
      throw StatusError(Status::invalid("argument", text, "must be key=value"));
    }
    values_[text.substr(0, equals)] = text.substr(equals + 1);
  }
}

std::string Options::text(const std::string& key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) {
    throw StatusError(Status::invalid("argument", key, "is missing"));
  }
  return found->second;
}

int64_t Options::integer(const std::string& key) const {
  return std::strtoll(text(key).c_str(), nullptr, 10);
}

bool Options::flag(const std::string& key) const {
  const auto found = values_.find(key);
  return found != values_.end() && found->second == "1";
}

bool Options::has(const std::string& key) const { return values_.contains(key); }

std::vector<int> processors(int64_t threads) {
  cpu_set_t ours;
  CPU_ZERO(&ours);
  sched_getaffinity(0, sizeof(ours), &ours);
  if (threads == 1 || CPU_COUNT(&ours) < threads) return {};
  std::vector<int> found;
  for (int cpu = 0; std::ssize(found) < threads; ++cpu) {
    if (CPU_ISSET(cpu, &ours)) found.push_back(cpu);
  }
  return found;
}

int64_t process_bytes(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    int64_t kilobytes = 0;
    if (word == name + ":" && status >> kilobytes) return kilobytes << 10;
  }
  return 0;
}

}  // namespace weft::bench
