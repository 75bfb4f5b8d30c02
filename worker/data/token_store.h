// A long sequence of token ids in memory, 2 bytes each where the vocabulary allows, else 4.
//
// Thread safety: const calls from any thread. Ownership: owns the ids.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace weft {

class TokenStore {
 public:
  TokenStore() = default;
  explicit TokenStore(int64_t vocab_size) : narrow_(vocab_size <= 65536) {}
  int64_t size() const { return static_cast<int64_t>(narrow_ ? ids16_.size() : ids32_.size()); }
  int64_t at(int64_t index) const {
    const auto i = static_cast<size_t>(index);
    return narrow_ ? ids16_[i] : ids32_[i];
  }
  // ids in [0, vocab_size).
  template <typename Id>
  void append(std::span<const Id> ids) {
    for (const Id id : ids) push(static_cast<int64_t>(id));
  }
  void push(int64_t id) {
    if (narrow_) {
      ids16_.push_back(static_cast<uint16_t>(id));
    } else {
      ids32_.push_back(static_cast<int32_t>(id));
    }
  }
  void truncate(int64_t size) {
    narrow_ ? ids16_.resize(static_cast<size_t>(size)) : ids32_.resize(static_cast<size_t>(size));
  }
  void copy(int64_t start, std::span<int64_t> out) const {
    for (size_t i = 0; i < out.size(); ++i) out[i] = at(start + static_cast<int64_t>(i));
  }

 private:
  bool narrow_ = true;
  std::vector<uint16_t> ids16_;
  std::vector<int32_t> ids32_;
};

}  // namespace weft
