#include "worker/parallel/collective_ops.h"

#include <string_view>
#include <vector>

#include "kernels/ops/common.h"
#include "kernels/tensor/strided.h"

namespace weft::parallel {
namespace {

Tensor reshaped(const Tensor& x, const Shape& shape, int64_t offset = 0) {
  const Strides strides = row_major_strides(shape);
  return x.view(shape, std::span(strides).first(static_cast<size_t>(shape.dims())), offset);
}

// Where each rank's part of one dim lies: within the whole tensor, and in a buffer of parts in rank
// order, which is what the transports move.
struct Parts {
  Parts(const Communicator& comm, const Shape& whole_shape, int dim_index)
      : whole(whole_shape), dim(ops::positive_dim(dim_index, whole_shape)) {
    int64_t at = 0;
    for (int r = 0; r < comm.size(); ++r) {
      const Part part = part_of(whole[dim], comm.size(), r);
      Shape shape = whole;
      shape[dim] = part.length;
      starts.push_back(part.start);
      shapes.push_back(shape);
      offsets.push_back(at);
      counts.push_back(shape.elements());
      at += shape.elements();
    }
    outermost = ops::split_at(whole, dim).outer == 1;  // the buffer is the whole, as it is
  }
  // Part r as a view of x, which has the shape `whole`.
  Tensor in_whole(const Tensor& x, int r) const {
    const auto i = static_cast<size_t>(r);
    return x.view(shapes[i], x.strides(), starts[i] * x.strides()[static_cast<size_t>(dim)]);
  }
  Tensor in_buffer(const Tensor& buffer, int r) const {
    const auto i = static_cast<size_t>(r);
    return reshaped(buffer, shapes[i], offsets[i]);
  }

  const Shape whole;
  const int dim;
  std::vector<int64_t> starts, offsets, counts;
  std::vector<Shape> shapes;
  bool outermost = false;
};

Shape with_extent(Shape shape, int dim, int64_t extent) {
  shape[ops::positive_dim(dim, shape)] = extent;
  return shape;
}

// ---- the three movements, on values -------------------------------------------------------------

Tensor gather_values(Context& cx, Communicator& comm, const Tensor& x, int dim, int64_t whole) {
  const Parts parts(comm, with_extent(x.shape(), dim, whole), dim);
  const Shape& mine = parts.shapes[static_cast<size_t>(comm.rank())];
  WEFT_CHECK(x.shape() == mine, "part {} of dim {} of {}, expected {}", x.shape().to_string(), dim,
             parts.whole.to_string(), mine.to_string());
  const Tensor in = as_contiguous(cx.pool, x);
  Tensor buffer = Tensor::empty(cx.allocator, parts.whole, x.dtype());
  comm.all_gather(in, buffer, parts.counts);
  if (parts.outermost) return buffer;
  Tensor out = Tensor::empty(cx.allocator, parts.whole, x.dtype());
  for (int r = 0; r < comm.size(); ++r) {
    copy_into(cx.pool, parts.in_buffer(buffer, r), parts.in_whole(out, r));
  }
  return out;
}

Tensor scatter_values(Context& cx, Communicator& comm, const Tensor& x, int dim) {
  const Parts parts(comm, x.shape(), dim);
  Tensor buffer = x;
  if (parts.outermost) {
    buffer = as_contiguous(cx.pool, x);
  } else {
    buffer = Tensor::empty(cx.allocator, parts.whole, x.dtype());
    for (int r = 0; r < comm.size(); ++r) {
      copy_into(cx.pool, parts.in_whole(x, r), parts.in_buffer(buffer, r));
    }
  }
  Tensor out =
      Tensor::empty(cx.allocator, parts.shapes[static_cast<size_t>(comm.rank())], x.dtype());
  comm.reduce_scatter(buffer, out, parts.counts);
  return out;
}

Tensor own_values(Context& cx, Communicator& comm, const Tensor& x, int dim) {
  return clone(cx.pool, Parts(comm, x.shape(), dim).in_whole(x, comm.rank()));
}

Tensor sum_values(Context& cx, Communicator& comm, const Tensor& x) {
  Tensor sum = clone(cx.pool, x);
  comm.all_reduce(sum, ReduceOp::kSum);
  return sum;
}

// ---- as ops: each is one movement forwards and its conjugate backwards
// ------------------------------

class CollectiveOp : public ops::ForwardOp {
 public:
  CollectiveOp(Communicator& comm, int dim, int64_t whole)
      : comm_(comm), dim_(dim), whole_(whole) {}
  bool native(DType) const override { return true; }  // transports sum half types in fp32
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }
  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    return {forwards(cx, inputs[0])};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    return {backwards(cx, output_grads[0])};
  }

 protected:
  virtual Tensor forwards(Context& cx, const Tensor& x) = 0;
  virtual Tensor backwards(Context& cx, const Tensor& dy) = 0;

  Communicator& comm_;
  const int dim_;
  const int64_t whole_;  // extent along dim_ of the whole
};

class CopyToAxis final : public CollectiveOp {
 public:
  using CollectiveOp::CollectiveOp;
  std::string_view name() const override { return "copy_to_axis"; }
  // Of a parameter a copy: its memory may be given back before the backward pass (ZeRO-3).
  Tensor forwards(Context& cx, const Tensor& x) override {
    return x.leaf() ? clone(cx.pool, x) : x.detach();
  }
  Tensor backwards(Context& cx, const Tensor& dy) override { return sum_values(cx, comm_, dy); }
};

class SumOverAxis final : public CollectiveOp {
 public:
  using CollectiveOp::CollectiveOp;
  std::string_view name() const override { return "sum_over_axis"; }
  Tensor forwards(Context& cx, const Tensor& x) override { return sum_values(cx, comm_, x); }
  Tensor backwards(Context&, const Tensor& dy) override { return dy; }
};

class GatherAlong final : public CollectiveOp {
 public:
  using CollectiveOp::CollectiveOp;
  std::string_view name() const override { return "gather_along"; }
  Tensor forwards(Context& cx, const Tensor& x) override {
    return gather_values(cx, comm_, x, dim_, whole_);
  }
  Tensor backwards(Context& cx, const Tensor& dy) override {
    return scatter_values(cx, comm_, dy, dim_);
  }
};

class ScatterSumAlong final : public CollectiveOp {
 public:
  using CollectiveOp::CollectiveOp;
  std::string_view name() const override { return "scatter_sum_along"; }
  Tensor forwards(Context& cx, const Tensor& x) override {
    return scatter_values(cx, comm_, x, dim_);
  }
  Tensor backwards(Context& cx, const Tensor& dy) override {
    return gather_values(cx, comm_, dy, dim_, whole_);
  }
};

class SplitAlong final : public CollectiveOp {
 public:
  using CollectiveOp::CollectiveOp;
  std::string_view name() const override { return "split_along"; }
  Tensor forwards(Context& cx, const Tensor& x) override { return own_values(cx, comm_, x, dim_); }
  Tensor backwards(Context& cx, const Tensor& dy) override {
    return gather_values(cx, comm_, dy, dim_, whole_);
  }
};

class JoinAlong final : public CollectiveOp {
 public:
  using CollectiveOp::CollectiveOp;
  std::string_view name() const override { return "join_along"; }
  Tensor forwards(Context& cx, const Tensor& x) override {
    return gather_values(cx, comm_, x, dim_, whole_);
  }
  Tensor backwards(Context& cx, const Tensor& dy) override {
    return own_values(cx, comm_, dy, dim_);
  }
};

template <typename T>
Tensor run(Context& cx, Communicator& comm, const Tensor& x, int dim, int64_t whole) {
  if (comm.size() == 1) return x;
  return ops::run<T>(cx, {x}, comm, dim, whole);
}

}  // namespace

Tensor copy_to_axis(Context& cx, Communicator& comm, const Tensor& x) {
  return run<CopyToAxis>(cx, comm, x, 0, 0);
}
Tensor sum_over_axis(Context& cx, Communicator& comm, const Tensor& x) {
  return run<SumOverAxis>(cx, comm, x, 0, 0);
}
Tensor gather_along(Context& cx, Communicator& comm, const Tensor& x, int dim, int64_t whole) {
  return run<GatherAlong>(cx, comm, x, dim, whole);
}
Tensor scatter_sum_along(Context& cx, Communicator& comm, const Tensor& x, int dim) {
  return run<ScatterSumAlong>(cx, comm, x, dim, x.shape()[dim]);
}
Tensor split_along(Context& cx, Communicator& comm, const Tensor& x, int dim) {
  return run<SplitAlong>(cx, comm, x, dim, x.shape()[dim]);
}
Tensor join_along(Context& cx, Communicator& comm, const Tensor& x, int dim, int64_t whole) {
  return run<JoinAlong>(cx, comm, x, dim, whole);
}

}  // namespace weft::parallel
