// Memory of tensors, and with it their device. One allocator a rank; storage returns to it at its
// last use.
//
// Thread safety: every call from any thread. Ownership: the allocator outlives every block.
// Invariants: 1. blocks are aligned to 64 bytes or more. 2. live_bytes is the sum of the sizes
// asked for and not yet released; peak_bytes its maximum since reset_peak. 3. once the same
// sequence of requests has been seen twice, allocate makes no call to the system.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "kernels/tensor/device.h"

namespace weft {

class Stream;

struct AllocatorStats {
  int64_t live_bytes = 0;
  int64_t peak_bytes = 0;
  int64_t reserved_bytes = 0;  // taken from the system
  int64_t system_calls = 0;    // so far
  double fragmentation = 0;    // 1 - largest free block / free bytes; 0 when nothing is free
};

class Allocator {
 public:
  virtual ~Allocator() = default;
  // Throws StatusError(kResourceExhausted) when the system refuses. bytes 0 gives a valid pointer.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* data, size_t bytes) noexcept = 0;
  virtual Device device() const { return {}; }
  // The queue of all work on this memory; null on the CPU, where work is done when a call returns.
  virtual Stream* stream() const { return nullptr; }
  virtual AllocatorStats stats() const = 0;
  virtual void reset_peak() = 0;
};

// Where a caching allocator takes its segments from; each call counts as one of the system's.
class SegmentSource {
 public:
  virtual ~SegmentSource() = default;
  virtual size_t alignment() const = 0;  // of blocks; a power of two
  virtual void* take(size_t bytes) = 0;  // null: refused
  virtual void give_back(void* data, size_t bytes) noexcept = 0;
  virtual std::string what() const = 0;  // "the system", for error messages
};

struct MemoryRange {
  char* data = nullptr;
  size_t bytes = 0;
};

// Best fit over memory reserved in large segments, freed blocks merged with their neighbours. Never
// touches the memory itself.
class CachingMemory : public Allocator {
 public:
  // For work that is done again at the addresses that it had: whether nothing in use overlaps these
  // ranges, each of which lies in one segment.
  virtual bool are_free(std::span<const MemoryRange> ranges) const = 0;
  // allocate(bytes) at this place, which is free.
  virtual void take(void* data, size_t bytes) = 0;
  virtual bool holds(const void* data) const = 0;  // whether `data` is what allocate() gave
  virtual void give_back() = 0;                    // segments of which nothing is in use
};
std::unique_ptr<CachingMemory> make_caching_allocator(std::unique_ptr<SegmentSource> source);
std::unique_ptr<CachingMemory> make_caching_allocator();  // of pages of the host

}  // namespace weft
