// An ordered map of bytes with atomic, synced batches: what the job store stands on. RocksDB in the
// service, memory in tests.
//
// Thread safety: every call from any thread. Ownership: owns its files.
// Invariants: 1. write() is all or nothing and returns ok only when the batch is synced. 2. A full
// disk is kResourceExhausted; writes work again once there is room, without a restart.
// 3. Keys compare as unsigned bytes.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proto/base/status.h"

namespace weft {

struct WriteSet {
  std::vector<std::pair<std::string, std::string>> puts;
  std::vector<std::string> removes;
  std::vector<std::pair<std::string, std::string>> removed_ranges;  // [first, second)
};

class KeyValue {
 public:
  virtual ~KeyValue() = default;
  // Ranges are removed first, then keys, then the puts are applied.
  virtual Status write(const WriteSet& set) = 0;
  virtual Result<std::optional<std::string>> get(const std::string& key) const = 0;
  // Visits [from, to) in key order until `visit` returns false.
  virtual Status scan(
      const std::string& from, const std::string& to,
      const std::function<bool(std::string_view key, std::string_view value)>& visit) const = 0;
  // The greatest key in [from, to), with its value.
  virtual Result<std::optional<std::pair<std::string, std::string>>> last(
      const std::string& from, const std::string& to) const = 0;
};

std::unique_ptr<KeyValue> make_memory_key_value();
// Creates the folder's database where it is missing.
Result<std::unique_ptr<KeyValue>> open_rocksdb_key_value(const std::string& folder);

}  // namespace weft
