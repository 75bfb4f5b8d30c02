// Keys of the job store; docs/FORMAT.md describes them. Numbers are big-endian, so that key order
// is numeric order. Thread safety: free functions on values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace weft::keys {

inline constexpr std::string_view kSchemaVersion = "1";

std::string big_endian(uint64_t value, int bytes);
uint64_t from_big_endian(std::string_view bytes);
std::string after(const std::string& prefix);  // the first key after all that start with `prefix`

inline std::string schema() { return "m/schema"; }
inline std::string probe() { return "m/probe"; }
inline std::string job(const std::string& id) { return "j/" + id; }
inline std::string events(const std::string& id) { return "e/" + id + "/"; }
inline std::string metrics(const std::string& id) { return "t/" + id + "/"; }
inline std::string logs(const std::string& id) { return "l/" + id + "/"; }
inline std::string ranks(const std::string& id) { return "r/" + id + "/"; }
inline std::string checkpoints(const std::string& id) { return "c/" + id + "/"; }
inline std::string checkpoint(const std::string& id) { return "k/" + id; }
inline std::string object(const std::string& id) { return "o/" + id; }
inline std::string node(const std::string& name) { return "n/" + name; }

inline std::string event(const std::string& id, int64_t sequence) {
  return events(id) + big_endian(static_cast<uint64_t>(sequence), 8);
}
inline std::string metric(const std::string& id, int64_t sequence) {
  return metrics(id) + big_endian(static_cast<uint64_t>(sequence), 8);
}
// rank -1 (the launcher) is stored as 0.
inline std::string log(const std::string& id, int32_t attempt, int32_t rank) {
  return logs(id) + big_endian(static_cast<uint64_t>(attempt), 4) +
         big_endian(static_cast<uint64_t>(rank + 1), 4);
}
inline std::string log(const std::string& id, int32_t attempt, int32_t rank, int64_t offset) {
  return log(id, attempt, rank) + big_endian(static_cast<uint64_t>(offset), 8);
}
inline std::string rank(const std::string& id, int32_t attempt, int32_t rank) {
  return ranks(id) + big_endian(static_cast<uint64_t>(attempt), 4) +
         big_endian(static_cast<uint64_t>(rank), 4);
}
inline std::string checkpoint_of(const std::string& job, int64_t created_ms,
                                 const std::string& id) {
  return checkpoints(job) + big_endian(static_cast<uint64_t>(created_ms), 8) + id;
}

}  // namespace weft::keys
