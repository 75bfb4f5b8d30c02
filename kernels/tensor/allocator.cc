#include "kernels/tensor/allocator.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <mutex>
#include <set>
#include <unordered_map>
#include <vector>

#include "proto/base/check.h"
#include "proto/base/status.h"

namespace weft {
namespace {

constexpr size_t kSmallMax = size_t{64} << 10;    // requests up to this share small segments
constexpr size_t kSegmentUnit = size_t{2} << 20;  // a huge page
constexpr size_t kSegmentGrowthMax = size_t{64} << 20;
constexpr size_t kOthersMin = size_t{32} << 20;
// Blocks beyond the caches, of whole pages, are followed by so much more: what a loop reads and
// writes of neighbours would else lie at the same place of pages, where the processor takes a load
// to wait for a store before it, and at the same sets of caches.
constexpr size_t kApartMin = size_t{32} << 20, kPage = 4096, kApart = 1088;

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// A piece of a segment; neighbours form a list in address order.
struct Block {
  char* data = nullptr;
  size_t bytes = 0;
  bool small = false;
  bool free = false;
  Block* before = nullptr;
  Block* after = nullptr;
};

struct BySizeThenAddress {
  bool operator()(const Block* a, const Block* b) const {
    return a->bytes != b->bytes ? a->bytes < b->bytes : a->data < b->data;
  }
};

// A limit on the process's data (RLIMIT_DATA) holds for libraries and threads too, which do not
// survive a refusal: tensors leave them the last part of it.
bool leaves_enough(size_t bytes) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_DATA, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return true;
  std::ifstream file("/proc/self/statm");
  size_t size = 0, resident = 0, shared = 0, text = 0, library = 0, data = 0;  // pages
  file >> size >> resident >> shared >> text >> library >> data;
  const size_t taken = data * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return taken + bytes + std::max(kOthersMin, limit.rlim_cur / 32) <= limit.rlim_cur;
}

// Each segment behind the one before, where nobody else's memory lies: far below all of it.
class HostPages final : public SegmentSource {
 public:
  size_t alignment() const override { return 64; }
  void* take(size_t bytes) override {
    if (!leaves_enough(bytes)) return nullptr;
    if (next_ == 0) next_ = far_below();
    char* data = map(bytes);
    if (data == nullptr) return nullptr;
    ::madvise(data, bytes, MADV_HUGEPAGE);  // a hint, as the place is; a refusal changes nothing
    next_ = reinterpret_cast<uintptr_t>(data) + bytes;
    return data;
  }
  void give_back(void* data, size_t bytes) noexcept override { ::munmap(data, bytes); }
  std::string what() const override { return "the system"; }

 private:
  char* map(size_t bytes) const {
    void* data = ::mmap(reinterpret_cast<void*>(next_), bytes, PROT_READ | PROT_WRITE,  // NOLINT
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return data == MAP_FAILED ? nullptr : static_cast<char*>(data);
  }

  // The next allocator's elsewhere. 0, anywhere: there is no such place.
  uintptr_t far_below() const {
    constexpr uintptr_t kApart = uintptr_t{64} << 30;
    constexpr uintptr_t kPlaces = 256;
    static std::atomic<uintptr_t> allocators{0};
    char* others = map(kSegmentUnit);
    if (others == nullptr) return 0;
    ::munmap(others, kSegmentUnit);
    const uintptr_t below = kApart * (1 + allocators++ % kPlaces);
    const auto top = reinterpret_cast<uintptr_t>(others);
    return top > below ? (top - below) / kSegmentUnit * kSegmentUnit : 0;
  }

  uintptr_t next_ = 0;
};

class CachingAllocator final : public CachingMemory {
 public:
  // extends: segments of the source that follow each other may be given back as one.
  CachingAllocator(std::unique_ptr<SegmentSource> source, bool extends)
      : source_(std::move(source)), alignment_(source_->alignment()), extends_(extends) {}
  ~CachingAllocator() override {
    for (const Segment& segment : segments_) source_->give_back(segment.data, segment.bytes);
    for (auto& [data, block] : used_) delete block;
    for (auto& pool : free_) {
      for (Block* block : pool) delete block;
    }
    for (Block* block : spare_) delete block;
  }

  void* allocate(size_t bytes) override {
    const std::lock_guard lock(mutex_);
    return use(best_fit(rounded(bytes)), bytes);
  }

  void take(void* data, size_t bytes) override {
    const std::lock_guard lock(mutex_);
    const MemoryRange range{static_cast<char*>(data), rounded(bytes)};
    Block* block = free_block_around(range);
    WEFT_CHECK(block != nullptr, "{} bytes at a place that is in use", bytes);
    free_list(block->small).erase(block);
    if (block->data < range.data) {
      split(block, static_cast<size_t>(range.data - block->data));
      free_list(block->small).insert(block);
      block = block->after;
      free_list(block->small).erase(block);
    }
    block->free = false;
    if (block->bytes > range.bytes) split(block, range.bytes);
    use(block, bytes);
  }

  bool are_free(std::span<const MemoryRange> ranges) const override {
    const std::lock_guard lock(mutex_);
    return std::all_of(ranges.begin(), ranges.end(), [&](const MemoryRange& range) {
      return free_block_around(range) != nullptr;
    });
  }

  bool holds(const void* data) const override {
    const std::lock_guard lock(mutex_);
    return used_.contains(const_cast<char*>(static_cast<const char*>(data)));
  }

  void give_back() override {
    const std::lock_guard lock(mutex_);
    return_free_segments();
  }

  void release(void* data, size_t bytes) noexcept override {
    const std::lock_guard lock(mutex_);
    const auto found = used_.find(static_cast<char*>(data));
    WEFT_CHECK(found != used_.end(), "release of memory that is not allocated");
    Block* block = found->second;
    used_.erase(found);
    live_bytes_ -= static_cast<int64_t>(bytes);
    block->free = true;
    if (joins(block, block->after)) join(block, block->after);
    if (joins(block->before, block)) {
      block = block->before;
      join(block, block->after);
    }
    free_list(block->small).insert(block);
  }

  AllocatorStats stats() const override {
    const std::lock_guard lock(mutex_);
    AllocatorStats stats;
    stats.live_bytes = live_bytes_;
    stats.peak_bytes = peak_bytes_;
    stats.system_calls = system_calls_;
    for (const Segment& segment : segments_) {
      stats.reserved_bytes += static_cast<int64_t>(segment.bytes);
    }
    size_t free_bytes = 0, largest = 0;
    for (const auto& pool : free_) {
      for (const Block* block : pool) free_bytes += block->bytes;
      if (!pool.empty()) largest = std::max(largest, (*pool.rbegin())->bytes);
    }
    if (free_bytes > 0) {
      stats.fragmentation = 1 - static_cast<double>(largest) / static_cast<double>(free_bytes);
    }
    return stats;
  }

  void reset_peak() override {
    const std::lock_guard lock(mutex_);
    peak_bytes_ = live_bytes_;
  }

 private:
  struct Segment {
    char* data;
    size_t bytes;
  };
  using FreeList = std::set<Block*, BySizeThenAddress>;

  FreeList& free_list(bool small) { return free_[small ? 1 : 0]; }

  size_t rounded(size_t bytes) const {
    const size_t whole = round_up(std::max<size_t>(bytes, 1), alignment_);
    return extends_ && whole >= kApartMin && whole % kPage == 0 ? whole + kApart : whole;
  }

  // The block, which is in no list any more, as one of `bytes` that were asked for.
  void* use(Block* block, size_t bytes) {
    used_[block->data] = block;
    live_bytes_ += static_cast<int64_t>(bytes);
    peak_bytes_ = std::max(peak_bytes_, live_bytes_);
    return block->data;
  }

  Block* free_block_around(const MemoryRange& range) const {
    for (const FreeList& list : free_) {
      for (Block* block : list) {
        if (block->data <= range.data && range.data + range.bytes <= block->data + block->bytes) {
          return block;
        }
      }
    }
    return nullptr;
  }

  Block* best_fit(size_t wanted) {
    const bool small = wanted <= kSmallMax;
    FreeList& list = free_list(small);
    Block probe;
    probe.bytes = wanted;
    auto found = list.lower_bound(&probe);
    if (found == list.end()) {
      reserve(wanted, small);
      found = list.lower_bound(&probe);
    }
    Block* block = *found;
    list.erase(found);
    block->free = false;
    if (block->bytes > wanted) split(block, wanted);
    return block;
  }

  void split(Block* block, size_t wanted) {
    Block* rest = new_block(block->data + wanted, block->bytes - wanted, block->small);
    rest->before = block;
    rest->after = block->after;
    if (rest->after != nullptr) rest->after->before = rest;
    block->after = rest;
    block->bytes = wanted;
    if (block == last_) last_ = rest;
    free_list(rest->small).insert(rest);
  }

  static bool joins(const Block* first, const Block* second) {
    return first != nullptr && second != nullptr && first->free && second->free &&
           first->small == second->small;
  }

  // `second`, the free neighbour after `first`, becomes part of it; neither stays in a free list.
  void join(Block* first, Block* second) {
    free_list(first->small).erase(first);
    free_list(second->small).erase(second);
    first->bytes += second->bytes;
    first->after = second->after;
    if (first->after != nullptr) first->after->before = first;
    if (second == last_) last_ = first;
    spare_.push_back(second);
  }

  Block* new_block(char* data, size_t bytes, bool small) {
    Block* block = nullptr;
    if (spare_.empty()) {
      block = new Block;
    } else {
      block = spare_.back();
      spare_.pop_back();
    }
    *block = Block{data, bytes, small, true, nullptr, nullptr};
    return block;
  }

  // As much more at the end of the newest segment as a block of `wanted` lacks there; false:
  // others' memory follows it, or it is refused.
  bool extend(size_t wanted) {
    if (last_ == nullptr) return false;
    const bool begun = last_->free && !last_->small;
    const size_t bytes = round_up(wanted - (begun ? last_->bytes : 0), kSegmentUnit);
    char* data = map(bytes);
    if (data != last_->data + last_->bytes) {
      if (data != nullptr) source_->give_back(data, bytes);
      return false;
    }
    segments_.back().bytes += bytes;
    Block* more = new_block(data, bytes, false);
    more->before = last_;
    last_->after = more;
    if (begun) {
      join(last_, more);
    } else {
      last_ = more;
    }
    free_list(false).insert(last_);
    return true;
  }

  // A part of a segment becomes one for small blocks.
  void reserve_small() {
    Block* block = best_fit(kSegmentUnit);
    block->small = block->free = true;
    free_list(true).insert(block);
  }

  // A new segment, larger the more there is, so that their number stays small.
  void reserve(size_t wanted, bool small) {
    if (extends_ && small) return reserve_small();
    if (extends_ && extend(wanted)) return;
    size_t grown = kSegmentUnit;
    if (!small) {
      size_t reserved = 0;
      for (const Segment& segment : segments_) reserved += segment.bytes;
      grown = std::min(round_up(reserved / 4 + 1, kSegmentUnit), kSegmentGrowthMax);
    }
    const size_t least = round_up(wanted, kSegmentUnit);
    size_t bytes = std::max(least, grown);
    char* data = map(bytes);
    if (data == nullptr && bytes > least) data = map(bytes = least);
    if (data == nullptr) {
      return_free_segments();
      data = map(bytes);
    }
    if (data == nullptr) {
      throw StatusError(Status(Code::kResourceExhausted,
                               fmt::format("{} refuses {} bytes of memory; {} are in use",
                                           source_->what(), bytes, live_bytes_)));
    }
    segments_.push_back({data, bytes});
    last_ = new_block(data, bytes, small);
    free_list(small).insert(last_);
  }

  char* map(size_t bytes) {
    ++system_calls_;
    return static_cast<char*>(source_->take(bytes));
  }

  void return_free_segments() {
    for (FreeList& list : free_) {
      for (auto it = list.begin(); it != list.end();) {
        Block* block = *it;
        if (block->before != nullptr || block->after != nullptr) {
          ++it;
          continue;
        }
        it = list.erase(it);
        if (block == last_) last_ = nullptr;
        ++system_calls_;
        source_->give_back(block->data, block->bytes);
        std::erase_if(segments_,
                      [&](const Segment& segment) { return segment.data == block->data; });
        spare_.push_back(block);
      }
    }
  }

  const std::unique_ptr<SegmentSource> source_;
  const size_t alignment_;
  const bool extends_;
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::vector<Segment> segments_;
  Block* last_ = nullptr;  // at the end of the newest segment
  std::unordered_map<char*, Block*> used_;
  FreeList free_[2];  // large, small
  std::vector<Block*> spare_;
  int64_t live_bytes_ = 0, peak_bytes_ = 0, system_calls_ = 0;
};

}  // namespace

std::unique_ptr<CachingMemory> make_caching_allocator(std::unique_ptr<SegmentSource> source) {
  return std::make_unique<CachingAllocator>(std::move(source), false);
}

std::unique_ptr<CachingMemory> make_caching_allocator() {
  return std::make_unique<CachingAllocator>(std::make_unique<HostPages>(), true);
}

}  // namespace weft
