// Content-addressed bytes: the key of a chunk is its SHA-256. Agents and the coordinator each have
// one.
//
// Thread safety: every call from any thread. Ownership: owns its database.
// Invariants: 1. A put returns ok only when the bytes are synced. 2. get checks the hash; bytes
// that do not match are kCorruption, never returned. 3. a full disk is kResourceExhausted and loses
// nothing; writes work again once there is room. A put leaves kept_free() of the disk (disk.h),
// with which removals go on.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proto/base/status.h"

namespace rocksdb {
class Env;
}

namespace weft {

inline constexpr int64_t kChunkBytesMax = int64_t{4} << 20;

class ChunkStore {
 public:
  virtual ~ChunkStore() = default;
  // Refuses bytes of another hash. Repeating it is free.
  virtual Status put(const std::string& hash, std::string_view bytes) = 0;
  // As put, but takes the hash's word: for bytes that somebody else checks before they are relied
  // on.
  virtual Status put_unchecked(const std::string& hash, std::string_view bytes) = 0;
  virtual Result<std::string> get(const std::string& hash) const = 0;
  // Bytes; none: not here. Reads nothing of a large chunk, nor does for_each.
  virtual std::optional<int64_t> size(const std::string& hash) const = 0;
  bool has(const std::string& hash) const { return size(hash).has_value(); }
  // Large chunks give their room back at once.
  virtual Status remove(const std::vector<std::string>& hashes) = 0;
  virtual Status for_each(
      const std::function<void(const std::string& hash, int64_t size)>& visit) const = 0;
  virtual int64_t bytes() const = 0;  // stored, approximately
  // Whether the last write was refused for want of room. room() also tries to go on writing: ok, or
  // kResourceExhausted.
  virtual bool full() const = 0;
  virtual Status room() = 0;
};

// disk: what the files lie on, which lives longer; null: the system's.
Result<std::unique_ptr<ChunkStore>> open_chunk_store(const std::string& folder,
                                                     rocksdb::Env* disk = nullptr);

}  // namespace weft
