#include "kernels/cuda/gpu_memory.h"

#include <algorithm>
#include <utility>

#include "proto/base/status.h"

namespace weft::cuda {
namespace {

constexpr size_t kBlockAlignment = 512;

class DeviceSegments final : public SegmentSource {
 public:
  DeviceSegments(int index, const bool& closed) : index_(index), closed_(closed) {}
  size_t alignment() const override { return kBlockAlignment; }
  void* take(size_t bytes) override {
    if (closed_) {
      throw StatusError(Status(Code::kFailedPrecondition, "memory that is still to be reserved"));
    }
    void* data = nullptr;
    if (cudaSetDevice(index_) != cudaSuccess || cudaMalloc(&data, bytes) != cudaSuccess) {
      (void)cudaGetLastError();  // a refusal is told by the null pointer
      return nullptr;
    }
    return data;
  }
  // The runtime waits for the device first.
  void give_back(void* data, size_t) noexcept override { (void)cudaFree(data); }
  std::string what() const override { return "cuda:" + std::to_string(index_); }

 private:
  const int index_;
  const bool& closed_;
};

}  // namespace

GpuMemory::GpuMemory(int index)
    : lasting_(make_caching_allocator(std::make_unique<DeviceSegments>(index, closed_))),
      passing_(make_caching_allocator(std::make_unique<DeviceSegments>(index, closed_))),
      gpu_(std::make_unique<Gpu>(index, *this)) {}

GpuMemory::~GpuMemory() { gpu_.reset(); }  // waits: nothing uses the blocks any more

void* GpuMemory::allocate(size_t bytes) {
  const std::lock_guard lock(mutex_);
  CachingMemory &part = in_pass_ ? *passing_ : *lasting_, &other = in_pass_ ? *lasting_ : *passing_;
  void* data = std::exchange(place_, nullptr);
  if (data != nullptr) {
    passing_->take(data, bytes);
  } else {
    try {
      data = part.allocate(bytes);
    } catch (const StatusError& error) {
      if (error.status().code() != Code::kResourceExhausted) throw;
      other.give_back();
      data = part.allocate(bytes);
    }
  }
  if (ranges_ != nullptr) ranges_->push_back({static_cast<char*>(data), bytes});
  live_bytes_ += static_cast<int64_t>(bytes);
  peak_bytes_ = std::max(peak_bytes_, live_bytes_);
  return data;
}

void GpuMemory::release(void* data, size_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  live_bytes_ -= static_cast<int64_t>(bytes);
  (passing_->holds(data) ? *passing_ : *lasting_).release(data, bytes);
}

AllocatorStats GpuMemory::stats() const {
  const std::lock_guard lock(mutex_);
  AllocatorStats stats;
  stats.live_bytes = live_bytes_;
  stats.peak_bytes = peak_bytes_;
  double free = 0, largest = 0;
  for (const auto* part : {lasting_.get(), passing_.get()}) {
    const AllocatorStats own = part->stats();
    stats.reserved_bytes += own.reserved_bytes;
    stats.system_calls += own.system_calls;
    const double own_free = static_cast<double>(own.reserved_bytes - own.live_bytes);
    free += own_free;
    largest = std::max(largest, (1 - own.fragmentation) * own_free);
  }
  if (free > 0) stats.fragmentation = 1 - largest / free;
  return stats;
}

void GpuMemory::reset_peak() {
  const std::lock_guard lock(mutex_);
  peak_bytes_ = live_bytes_;
}

Tensor GpuMemory::at(void* data, const TensorSpec& spec) {
  const std::lock_guard lock(mutex_);
  place_ = data;
  return Tensor::empty(*this, spec.shape, spec.dtype);
}

bool GpuMemory::in_pass(bool on) {
  const std::lock_guard lock(mutex_);
  return std::exchange(in_pass_, on);
}

GpuMemory::Recorded::Recorded(GpuMemory& memory, std::vector<MemoryRange>& ranges)
    : memory_(memory), pass_(memory) {
  const std::lock_guard lock(memory_.mutex_);
  memory_.ranges_ = &ranges;
  memory_.closed_ = true;
}

GpuMemory::Recorded::~Recorded() {
  const std::lock_guard lock(memory_.mutex_);
  memory_.ranges_ = nullptr;
  memory_.closed_ = false;
}

}  // namespace weft::cuda
