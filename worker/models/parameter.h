// A parameter of a model as one rank holds it: its name and shape in the whole model, and which
// part of it this rank has.
//
// Thread safety: values. Ownership: a Parameter shares its tensor with the model.
// Invariants: 1. value has the whole shape with dim `shard.dim` replaced by the sum of the ranges'
// lengths. 2. what counts of the tensor axis' shards (counted_part) covers the parameter exactly
// once, or each shard is the whole.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/tensor/tensor.h"
#include "worker/parallel/mesh.h"

namespace weft {

// This rank's part along `dim`: the ranges one behind the other, in this order. dim -1: the whole
// parameter. Several ranges: GPT-2's c_attn holds query, key and value side by side.
struct Shard {
  int dim = -1;
  std::vector<Part> ranges;
  // The copy-th of so many neighbours on the tensor axis that hold the same ranges.
  int copy = 0, copies = 1;
  // So many of the first indices neighbours before this one hold, too, whose count (not this
  // rank's); above 0 only along dim 0, of one range.
  int64_t repeated = 0;
  // Of topology-invariant training: outputs of a cell of a product (parallel/tensor_parallel.h's
  // Held); 0: a block's.
  int64_t cell = 0;
  bool whole() const { return dim < 0; }
};

// How tokens look rows of a table up. A token's rows of all such tables are added, so the tables'
// gradients have the same rows, at other places.
enum class LookedUp : uint8_t { kNever, kByToken, kByPosition };

enum class Initializer { kZeros, kOnes, kConstant, kNormal, kUniform, kSinusoids };

struct ParameterInfo {
  std::string name;  // as in model.safetensors; of a task's head: "<task>.<name>"
  Shape shape;       // of the whole parameter
  Shard shard;
  Initializer initializer = Initializer::kZeros;
  // Of kNormal, drawn by global element index as kUniform is, whose bound it is, either side of 0;
  // of kConstant the value. kSinusoids: of each row's position, half of the features its sines and
  // half its cosines.
  double deviation = 0;
  bool decay = false;  // weight decay applies (two and more dimensions)
  // Parameters of one unit are used together: 0 before the blocks, 1, 2, ... the blocks, then what
  // follows them (ModelConfig::unit_of); a trunk's parameters come in this order. Of heads:
  // negative, one a task.
  int64_t unit = 0;
  LookedUp looked_up = LookedUp::kNever;
  // A model of half precision computes with fp32 all the same: a weight of a norm, near 1, where an
  // update of 1e-4 is far below what a half type tells apart.
  bool keep_fp32 = false;
  bool behind_attention = false;  // of a block: nothing before its attention's output uses it
  // False: it is frozen. It has no gradient, no moments, and no master beside its value.
  bool trained = true;
  // False: no task of the job reads it, so that it has no gradient.
  bool reached = true;
  std::string adapts;  // of an adapter's (adapter.h): the weight that it adapts; else empty
};

// What a model of this precision computes with.
constexpr DType value_dtype(bool keep_fp32, DType precision) {
  return keep_fp32 && is_half(precision) ? DType::kF32 : precision;
}

// Whether both are parameters of one layer, as a weight and its bias: names that differ in nothing
// but what follows the last dot.
bool same_layer(const ParameterInfo& a, const ParameterInfo& b);

// The elements, of those of its shard, in which rank `index` of the tensor axis is the one of the
// ranks that hold them which counts.
Part counted_part(const ParameterInfo& info, int index);

struct Parameter {
  ParameterInfo info;
  Tensor value;  // a leaf; requires_grad where it is trained
};

}  // namespace weft
