// Values on a GPU without drawing each: one block of them, again and again, which tests/gpu/peer.py
// makes likewise. Element i of the block is uniform with mean 0 and variance 1, a hash of i (the
// finalizer of MurmurHash3, Appleby 2011).
//
// Thread safety: the thread that queues on the allocator's stream. Ownership: refers to the
// allocator, whose device is a GPU.
#pragma once

#include <map>
#include <span>

#include "kernels/tensor/tensor.h"
#include "worker/models/parameter.h"

namespace weft::gpu {

class Repeated {
 public:
  static constexpr int64_t kBlock = 1'000'003;  // a prime: rows of a matrix differ

  explicit Repeated(Allocator& allocator) : allocator_(allocator) {}

  // target[i] = deviation * block[(start + i) mod kBlock]; contiguous fp32.
  void fill(const Tensor& target, int64_t start, double deviation);
  // First values of parameters: as their plan says, but `normal` ones from the block, each from
  // 7919 times the sum of its name's bytes on.
  void fill(std::span<Parameter> parameters);

 private:
  const Tensor& block(double deviation);
  Allocator& allocator_;
  std::map<double, Tensor> blocks_;  // by deviation
};

}  // namespace weft::gpu
