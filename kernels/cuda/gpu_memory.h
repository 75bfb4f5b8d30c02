// The memory of one GPU: two caching allocators over what the driver gives. What a pass (the
// forward and backward pass of a micro-batch) allocates comes from a part of its own, so that
// nothing that outlives a step lies between it and a pass that is recorded finds its addresses free
// again. A part that the driver refuses more gets what the other one does not use.
//
// Thread safety: every call from any thread; a pass and a recording belong to one thread at a time.
// Ownership: owns the Gpu, which takes its scratch from here.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "kernels/cuda/gpu.h"
#include "kernels/tensor/allocator.h"

namespace weft::cuda {

class GpuMemory final : public Allocator {
 public:
  // Throws StatusError.
  explicit GpuMemory(int index);
  ~GpuMemory() override;
  void* allocate(size_t bytes) override;
  void release(void* data, size_t bytes) noexcept override;
  Device device() const override { return gpu_->device(); }
  Stream* stream() const override { return gpu_.get(); }
  AllocatorStats stats() const override;
  void reset_peak() override;

  // While it lives, memory is taken from the part for passes.
  class Pass {
   public:
    explicit Pass(GpuMemory& memory) : memory_(memory), outer_(memory.in_pass(true)) {}
    ~Pass() { memory_.in_pass(outer_); }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;

   private:
    GpuMemory& memory_;
    const bool outer_;
  };
  // A pass whose blocks are listed; the driver is asked for nothing meanwhile: where that would be
  // needed, allocate throws StatusError(kFailedPrecondition).
  class Recorded {
   public:
    Recorded(GpuMemory& memory, std::vector<MemoryRange>& ranges);
    ~Recorded();
    Recorded(const Recorded&) = delete;
    Recorded& operator=(const Recorded&) = delete;

   private:
    GpuMemory& memory_;
    const Pass pass_;
  };

  // Of the part for passes.
  bool are_free(std::span<const MemoryRange> ranges) const { return passing_->are_free(ranges); }
  // A tensor at that place, which is free.
  Tensor at(void* data, const TensorSpec& spec);

 private:
  bool in_pass(bool on);  // what it was

  mutable std::recursive_mutex mutex_;
  bool closed_ = false;  // to the driver; read by the sources while mutex_ is held
  const std::unique_ptr<CachingMemory> lasting_, passing_;
  // Guarded by mutex_.
  bool in_pass_ = false;
  void* place_ = nullptr;  // of the next block
  std::vector<MemoryRange>* ranges_ = nullptr;
  int64_t live_bytes_ = 0, peak_bytes_ = 0;
  std::unique_ptr<Gpu> gpu_;  // constant after construction
};

}  // namespace weft::cuda
