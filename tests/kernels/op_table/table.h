// The case table of the ops: for each op what computes it, its plain composition where it is fused,
// and the inputs that it is tried with. The rows are data, and functions of the context: the CPU's
// checks (op_table_test.cc) and the comparison with PyTorch (export_main.cc) run the same ones.
//
// Thread safety: values; rows() may be called from any thread.
// Invariants: 1. a row's name is unique and is the key of its torch expression
// (tests/conformance/op_expressions.py). 2. what a function computes depends on its inputs, its
// attributes and the context only.
#pragma once

#include <cstdint>
#include <map>
#include <ostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/autograd/context.h"
#include "kernels/tensor/tensor.h"

namespace weft::op_table {

enum class Draw : uint8_t {
  kNormal,    // standard normal, moved away from 0 by 1e-3 (where many ops have a kink)
  kPositive,  // |standard normal| + 0.5
  kUnit,      // uniform in [0.05, 0.95]
  kDistinct,  // a shuffled ramp in steps of 0.01 around 0: no ties, also not after a small step
  kIndex,     // int64, uniform in [from, below)
  kGiven,     // int64, `given`
};

struct Input {
  Shape shape;
  Draw draw = Draw::kNormal;
  int64_t from = 0, below = 0;
  std::vector<int64_t> given;
  bool gradient = true;  // false: a floating input that is a constant
  bool floating() const { return draw != Draw::kIndex && draw != Draw::kGiven; }
};

// Named numbers: dims, rates, lists. The name "block_count" sets the context's.
class Attributes {
 public:
  Attributes() = default;
  Attributes(std::initializer_list<std::pair<const std::string, std::vector<double>>> values)
      : values_(values) {}
  bool has(const std::string& name) const { return values_.contains(name); }
  double real(const std::string& name) const;
  int64_t integer(const std::string& name) const;
  int dim() const { return static_cast<int>(integer("dim")); }
  bool flag(const std::string& name) const { return has(name) && integer(name) != 0; }
  std::vector<int64_t> integers(const std::string& name) const;
  void set(const std::string& name, std::vector<double> values) {
    values_[name] = std::move(values);
  }
  const std::map<std::string, std::vector<double>>& values() const { return values_; }

 private:
  std::map<std::string, std::vector<double>> values_;
};

struct Case {
  std::vector<Input> inputs;
  Attributes attributes;
  std::string to_string() const;
};

using Inputs = std::span<const Tensor>;
using Outputs = std::vector<Tensor>;
using Function = Outputs (*)(Context&, Inputs, const Attributes&);

struct Row {
  std::string op;
  Function f = nullptr;
  std::vector<Case> cases;
  Function composition = nullptr;  // of a fused op: the same in plain ops
  // How many units in the last place of the largest element an op without a composition may be off
  // (its own roundings and those of its parts).
  double ulps = 4;
  // False: the vjp is a convention instead of the derivative (a padding row gets no gradient).
  bool differentiable = true;
  // Where outputs share inputs' gradients among them: what f computes as one number, of which they
  // are the derivative.
  Function whole = nullptr;
  double half_ulps = 1;  // as ulps, in half precision; rows() sets it
};

const std::vector<Row>& rows();
void PrintTo(const Row& row, std::ostream* out);  // its name, for GoogleTest

// ---- how a row is written
Input real(Shape shape);
Input positive(Shape shape);
Input unit(Shape shape);
Input distinct(Shape shape);
Input constant(Shape shape);  // normal, without a gradient
Input index(Shape shape, int64_t from, int64_t below);
Input given(Shape shape, std::vector<int64_t> values);

// One case for each shape, of one input.
std::vector<Case> each(const std::vector<Shape>& shapes, Attributes attributes = {},
                       Draw draw = Draw::kNormal);
// The cases one after the other.
std::vector<Case> all(std::initializer_list<std::vector<Case>> parts);

// Functions of one and of two tensors as a row has them.
template <Tensor (*kOp)(Context&, const Tensor&)>
Outputs unary(Context& cx, Inputs x, const Attributes&) {
  return {kOp(cx, x[0])};
}
template <Tensor (*kOp)(Context&, const Tensor&, const Tensor&)>
Outputs binary(Context& cx, Inputs x, const Attributes&) {
  return {kOp(cx, x[0], x[1])};
}

// Equal shapes and every way of broadcasting two.
std::vector<Case> pairs(Draw first, Draw second, const Attributes& attributes = {});

// Scalar, empty, one, primes, more than a thread's share: what an elementwise op has to take.
const std::vector<Shape>& many_shapes();
// Logits and labels from -1 (ignored) up to the last class.
std::vector<Case> classifications(const Attributes& attributes);

// The parts of the table, a file each.
std::vector<Row> arithmetic_rows();
std::vector<Row> activation_rows();
std::vector<Row> reduction_rows();
std::vector<Row> shape_rows();
std::vector<Row> product_rows();
std::vector<Row> lookup_rows();
std::vector<Row> norm_rows();
std::vector<Row> loss_rows();
std::vector<Row> elementwise_rows();
std::vector<Row> selection_rows();
std::vector<Row> dims_rows();
std::vector<Row> movement_rows();
std::vector<Row> index_rows();
std::vector<Row> segment_rows();
std::vector<Row> channel_norm_rows();
std::vector<Row> rotary_rows();
std::vector<Row> composed_loss_rows();
std::vector<Row> attention_rows();
std::vector<Row> convolution_rows();
std::vector<Row> recurrent_rows();
std::vector<Row> fused_rows();
std::vector<Row> relative_rows();

}  // namespace weft::op_table
