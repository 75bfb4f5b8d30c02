// A chunk store in memory, for tests of the coordinator.
#pragma once

#include <atomic>
#include <map>
#include <mutex>

#include "cluster/chunks/chunk_store.h"
#include "proto/base/hash.h"

namespace weft {

class MemoryChunks : public ChunkStore {
 public:
  Status put(const std::string& hash, std::string_view bytes) override {
    if (sha256_hex(bytes) != hash) return Status::invalid("hash", hash, "must be the SHA-256");
    return put_unchecked(hash, bytes);
  }
  Status put_unchecked(const std::string& hash, std::string_view bytes) override {
    std::lock_guard lock(mutex_);
    map_.emplace(hash, bytes);
    return {};
  }
  Result<std::string> get(const std::string& hash) const override {
    std::lock_guard lock(mutex_);
    auto it = map_.find(hash);
    if (it == map_.end()) return fail(Code::kNotFound, "no such chunk");
    return it->second;
  }
  std::optional<int64_t> size(const std::string& hash) const override {
    std::lock_guard lock(mutex_);
    const auto it = map_.find(hash);
    if (it == map_.end()) return std::nullopt;
    return static_cast<int64_t>(it->second.size());
  }
  Status remove(const std::vector<std::string>& hashes) override {
    std::lock_guard lock(mutex_);
    for (const auto& hash : hashes) map_.erase(hash);
    return {};
  }
  Status for_each(const std::function<void(const std::string&, int64_t)>& visit) const override {
    std::lock_guard lock(mutex_);
    for (const auto& [hash, bytes] : map_) visit(hash, static_cast<int64_t>(bytes.size()));
    return {};
  }
  int64_t bytes() const override {
    std::lock_guard lock(mutex_);
    int64_t sum = 0;
    for (const auto& [hash, bytes] : map_) sum += static_cast<int64_t>(bytes.size());
    return sum;
  }
  bool full() const override { return full_; }
  Status room() override {
    return full_ ? Status(Code::kResourceExhausted, "the disk is full") : Status();
  }
  void set_full(bool full) { full_ = full; }

 private:
  mutable std::mutex mutex_;  // guards map_
  std::map<std::string, std::string> map_;
  std::atomic<bool> full_{false};
};

}  // namespace weft
