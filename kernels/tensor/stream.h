// The queue of work of a device that is not the CPU: what its tensors can be asked for without
// knowing which device it is. Ops ask for more by the device's own interface (kernels/cuda).
//
// Thread safety: one thread at a time queues. Ownership: belongs to the allocator whose memory it
// orders. Invariants: 1. work runs in the order in which it was queued. 2. memory that was released
// may be handed out again while queued work still uses it, because whatever uses it next is queued
// behind. 3. what fails on the device is thrown as StatusError by the next call that waits.
#pragma once

#include <cstddef>

#include "kernels/tensor/device.h"

namespace weft {

class Tensor;

class Stream {
 public:
  virtual ~Stream() = default;
  virtual Device device() const = 0;

  // ---- queued; tensors are on this device
  // Equal shapes, any strides; where the dtypes differ, values are converted to that of `to`.
  virtual void copy(const Tensor& from, const Tensor& to) = 0;
  virtual void add(const Tensor& from, const Tensor& to) = 0;  // to += from, likewise
  virtual void fill(const Tensor& x, double value) = 0;        // contiguous

  // Queued; `from` on the host may change as soon as it returns.
  virtual void upload(void* to, const void* from, size_t bytes) = 0;
  // Waits for everything queued before, so `to` on the host is complete on return.
  virtual void download(void* to, const void* from, size_t bytes) = 0;
  virtual void synchronize() = 0;
};

}  // namespace weft
