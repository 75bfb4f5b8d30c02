// What an op needs of its rank: memory and with it the device and its queue, threads, and the tape
// that records it (if any).
//
// Thread safety: one compute thread uses it. Ownership: points to parts of the Rank, which outlives
// it.
#pragma once

#include "kernels/tensor/allocator.h"
#include "kernels/tensor/thread_pool.h"

namespace weft {

class Tape;

// What has the same bits every time.
enum class Repeats : uint8_t {
  kNothing,  // sums may be taken in whichever order is fastest
  kMesh,     // runs on the same mesh
  kTopology  // runs on any mesh: nothing may follow from how much of the whole is in one call
};

struct Context {
  Allocator& allocator;
  ThreadPool& pool;
  Tape* tape = nullptr;  // null: nothing is recorded (evaluation, the backward pass itself)
  // Sums and products of matrices are cut into this many blocks of the global extent and merged in
  // one fixed binary tree, so that the result does not depend on the mesh; 0: whole.
  int block_count = 0;
  bool repeatable = true;  // false: Repeats::kNothing
  // Where there is one, attention adds the operations of its products, whatever the mask left of
  // their tiles.
  int64_t* attention_flops = nullptr;

  Repeats repeats() const {
    if (block_count > 0) return Repeats::kTopology;
    return repeatable ? Repeats::kMesh : Repeats::kNothing;
  }
  Device device() const { return allocator.device(); }
  Stream* stream() const { return allocator.stream(); }  // null on the CPU
};

// Nothing is recorded while it lives.
class NoGrad {
 public:
  explicit NoGrad(Context& cx) : cx_(cx), tape_(cx.tape) { cx.tape = nullptr; }
  ~NoGrad() { cx_.tape = tape_; }
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  Context& cx_;
  Tape* const tape_;
};

}  // namespace weft
