#include <map>
#include <mutex>

#include "coordinator/store/key_value.h"

namespace weft {
namespace {

class MemoryKeyValue final : public KeyValue {
 public:
  Status write(const WriteSet& set) override {
    std::lock_guard lock(mutex_);
    for (const auto& [from, to] : set.removed_ranges) {
      map_.erase(map_.lower_bound(from), map_.lower_bound(to));
    }
    for (const auto& key : set.removes) map_.erase(key);
    for (const auto& [key, value] : set.puts) map_[key] = value;
    return {};
  }

  Result<std::optional<std::string>> get(const std::string& key) const override {
    std::lock_guard lock(mutex_);
    auto it = map_.find(key);
    if (it == map_.end()) return std::optional<std::string>();
    return std::optional<std::string>(it->second);
  }

  Status scan(const std::string& from, const std::string& to,
              const std::function<bool(std::string_view, std::string_view)>& visit) const override {
    std::lock_guard lock(mutex_);
    for (auto it = map_.lower_bound(from); it != map_.end() && it->first < to; ++it) {
      if (!visit(it->first, it->second)) break;
    }
    return {};
  }

  Result<std::optional<std::pair<std::string, std::string>>> last(
      const std::string& from, const std::string& to) const override {
    std::lock_guard lock(mutex_);
    std::optional<std::pair<std::string, std::string>> found;
    auto it = map_.lower_bound(to);
    if (it != map_.begin() && (--it)->first >= from) found = *it;
    return found;
  }

 private:
  mutable std::mutex mutex_;                // guards map_
  std::map<std::string, std::string> map_;  // std::string compares as unsigned bytes
};

}  // namespace

std::unique_ptr<KeyValue> make_memory_key_value() { return std::make_unique<MemoryKeyValue>(); }

}  // namespace weft
