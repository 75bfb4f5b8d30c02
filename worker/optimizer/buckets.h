// How the parameters of a model lie in flat buckets, and which part of each bucket is this rank's
// share among the ranks that hold the same parameters (Axis::kReplica).
//
// Buckets are made from the last parameter to the first, which is about the order in which the
// backward pass completes gradients. A bucket ends with a unit (ParameterInfo::unit) or before it
// would exceed the bytes that it may have; a parameter is never cut, what belongs to one layer (a
// weight and its bias, whose gradients come together) only where it does not fit at all. A table
// that tokens look rows up in has a bucket of its own, and so has the layer that is complete last,
// so that what comes before it leaves while the backward pass still computes. What is frozen
// (ParameterInfo::trained) has buckets of its own, of which only values travel. Every parameter
// starts at a multiple of 32 elements, what lies between is zero.
//
// Values lie in a bucket as gradients do, in a buffer of the model's precision. Of a half type
// those that are kept in fp32 (ParameterInfo::keep_fp32) take two places of the buffer an element,
// so that a bucket's values travel together whatever they are.
//
// Thread safety: a value. Invariants: 1. the layout depends on the parameters' shapes, the number
// of replicas and the bytes only, so every replica has the same. 2. part r of a bucket is
// part_of(its elements, replicas, r), for gradients, optimizer state and values alike, whatever is
// sharded: so sums run in the same order at every level of ZeRO.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/models/parameter.h"

namespace weft {

inline constexpr int64_t kBucketBytes = int64_t{8} << 20;

struct Bucket {
  struct Entry {
    size_t parameter = 0;  // its index
    int64_t offset = 0, elements = 0;
    Part own;  // what this rank's part has of it, in the parameter's own elements
    bool keep_fp32 = false;
  };
  int64_t unit = 0;
  LookedUp table = LookedUp::kNever;  // else of one parameter
  bool trained = true;
  std::vector<Entry> entries;
  int64_t elements = 0;         // with what lies between
  std::vector<int64_t> counts;  // elements of each replica's part
  Part own;

  // Where the value of an element lies in a buffer of this precision, and so where what comes
  // before it ends; those of the rank's part; how many places each replica's part has.
  int64_t place_of(int64_t element, DType precision) const;
  Part own_places(DType precision) const;
  std::vector<int64_t> place_counts(DType precision) const;
};

// What the layout takes of a parameter: its unit, and the elements of this rank's shard.
struct BucketItem {
  int64_t unit = 0, elements = 0;
  LookedUp looked_up = LookedUp::kNever;
  bool joined = false;  // of the same layer as the one before it (same_layer)
  bool keep_fp32 = false;
  bool trained = true;
};

// How the steps use the tables that tokens look rows up in.
struct TableUse {
  int64_t tokens = 0;  // that a rank looks up in one round of micro-batches, at most; 0: unknown
  bool tied = true;    // logits are products with the table that tokens look up by their ids
  bool accumulated = true;  // the rows of earlier micro-batches are in the gradients
  // The gradient is more than the rows of one round.
  bool whole(LookedUp by) const { return accumulated || (tied && by == LookedUp::kByToken); }
};
class Buckets {
 public:
  Buckets() = default;
  // bytes_max: of a bucket's gradients, in fp32.
  Buckets(std::span<const Parameter> parameters, int replicas, int replica,
          int64_t bytes_max = kBucketBytes);
  Buckets(std::span<const BucketItem> items, int replicas, int replica,
          int64_t bytes_max = kBucketBytes);

  const std::vector<Bucket>& all() const { return buckets_; }
  size_t bucket_of(size_t parameter) const { return places_[parameter].bucket; }
  const Bucket::Entry& entry_of(size_t parameter) const {
    return buckets_[places_[parameter].bucket].entries[places_[parameter].entry];
  }

 private:
  struct Place {
    size_t bucket = 0, entry = 0;
  };
  std::vector<Bucket> buckets_;
  std::vector<Place> places_;  // by parameter
};

// By bucket, whether it is a table, [elements / width, width], of which each rank sends the rows
// that it has looked up: where all ranks' together are at most the table, or half of it where it is
// sent besides, or where they travel anyway for the table of positions.
std::vector<char> sent_as_rows(const Buckets& buckets, const TableUse& use, int64_t width,
                               int replicas);

// Elements [start, start + length) of a contiguous tensor as a view in one dimension, or in
// `shape`.
Tensor slice_of(const Tensor& flat, int64_t start, int64_t length);
Tensor shaped_slice_of(const Tensor& flat, int64_t start, const Shape& shape);

// Elements `part` of an entry, [length], or all of it in `shape`, in a buffer of its bucket's
// values that begins with place `first`.
Tensor values_of(const Tensor& flat, int64_t first, const Bucket& bucket,
                 const Bucket::Entry& entry, Part part);
Tensor values_of(const Tensor& flat, const Bucket& bucket, const Bucket::Entry& entry,
                 const Shape& shape);

}  // namespace weft
