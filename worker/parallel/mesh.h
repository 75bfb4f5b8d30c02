// The mesh: the one place that turns degrees into named axes. Rank = (data * sequence + s) * tensor
// + t: tensor neighbours are closest, so they share a node. The sequence axis is itself ring x
// Ulysses, s = ring index * Ulysses size + Ulysses index, for the same reason.
//
// Ownership: owns one communicator an axis. Invariants: 1. data x sequence x tensor = world size;
// ulysses divides sequence.
#pragma once

#include <cstdint>
#include <memory>

#include "proto/base/status.h"
#include "worker/parallel/communicator.h"

namespace weft {

// kReplica is data and sequence together: the ranks that hold the same parameter shard, over which
// gradients are summed. Its index is data index * sequence size + sequence index. kRing and
// kUlysses together are kSequence (sequence_attention.h). kKeyHeads is the ranks of kTensor that
// hold the same head of keys, where share_heads() has told.
enum class Axis { kData, kSequence, kTensor, kReplica, kWorld, kRing, kUlysses, kKeyHeads };

struct MeshDegrees {
  int data = 1, sequence = 1, tensor = 1;
  int ulysses = 1;  // ranks of the sequence axis that exchange heads; the others go round in rings
  int64_t world() const { return int64_t{data} * sequence * tensor; }
};

struct Part {
  int64_t start = 0, length = 0;
  bool operator==(const Part&) const = default;
};
// What is in both.
Part common_part(const Part& a, const Part& b);
// Part `index` of `count` of [0, whole), from ceil(whole * index / count) on: parts differ by at
// most one, the first is a largest, and each is a union of parts of any multiple of `count`.
Part part_of(int64_t whole, int count, int index);
// The index of the part that holds an element; whole * count is below 2^63.
int part_with(int64_t whole, int count, int64_t element);

class Mesh {
 public:
  // A collective over `world`. Error: the degrees break invariant 1.
  static Result<Mesh> create(std::unique_ptr<Communicator> world, MeshDegrees degrees);
  // Another ulysses degree. A collective.
  void divide_sequence(int ulysses);
  // The head of keys that this rank of the tensor axis holds, of fewer than there are ranks, or
  // none. A collective.
  void share_heads(Part keys);
  bool shares_heads() const { return key_heads_ != nullptr; }
  // Other data and sequence degrees of the same product. A collective.
  void divide_replicas(int data, int sequence);

  MeshDegrees degrees() const { return degrees_; }
  Communicator& axis(Axis axis) const;
  int index(Axis axis) const { return this->axis(axis).rank(); }
  int size(Axis axis) const { return this->axis(axis).size(); }

 private:
  MeshDegrees degrees_;
  std::unique_ptr<Communicator> world_, data_, sequence_, tensor_, replica_, ring_, ulysses_,
      key_heads_;
};

}  // namespace weft
