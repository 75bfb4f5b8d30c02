// Ops that move elements or only look at them differently. Each vjp is the inverse movement.
#include <algorithm>
#include <numeric>

#include "kernels/cpu/convert.h"
#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"

namespace weft::ops {
namespace {

std::span<const int64_t> first(const Strides& strides, const Shape& shape) {
  return std::span(strides).first(static_cast<size_t>(shape.dims()));
}

Tensor narrowed(const Tensor& x, int dim, int64_t start, int64_t length) {
  Shape shape = x.shape();
  WEFT_CHECK(start >= 0 && length >= 0 && start + length <= shape[dim], "[{}, +{}) of dim {} of {}",
             start, length, dim, shape.to_string());
  shape[dim] = length;
  return x.view(shape, x.strides(), start * x.strides()[static_cast<size_t>(dim)]);
}

// Strides of x seen as `shape` without a copy, where there are any: each run of dims of x that lies
// evenly is cut anew.
bool view_strides(const Tensor& x, const Shape& shape, Strides& strides) {
  if (x.contiguous()) {
    strides = row_major_strides(shape);
    return true;
  }
  int from = x.shape().dims() - 1, to = shape.dims() - 1;
  while (from >= 0) {
    int64_t run = x.shape()[from], step = x.strides()[static_cast<size_t>(from)];
    const int64_t innermost = step;
    for (; from > 0; --from) {
      const int64_t outer = x.shape()[from - 1];
      if (outer != 1 && x.strides()[static_cast<size_t>(from - 1)] != run * innermost) break;
      run *= outer;
    }
    --from;
    int64_t filled = 1;
    for (; to >= 0 && (filled < run || shape[to] == 1); --to) {
      strides[static_cast<size_t>(to)] = step;
      step *= shape[to];
      filled *= shape[to];
    }
    if (filled != run) return false;
  }
  return to < 0;
}

class Reshape final : public ForwardOp {
 public:
  explicit Reshape(Shape shape) : shape_(shape) {}
  std::string_view name() const override { return "reshape"; }
  bool native(DType) const override { return true; }
  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    WEFT_CHECK(inputs[0].elements() == shape_.elements(), "reshape of {} to {}",
               inputs[0].shape().to_string(), shape_.to_string());
    Strides strides{};
    if (view_strides(inputs[0], shape_, strides)) {
      return {inputs[0].view(shape_, first(strides, shape_), 0)};
    }
    strides = row_major_strides(shape_);
    return {clone(cx.pool, inputs[0]).view(shape_, first(strides, shape_), 0)};
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    from_ = inputs[0].shape();
    return {};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    return {reshape(cx, output_grads[0], from_)};
  }

 private:
  const Shape shape_;
  Shape from_;
};

class Permute final : public ForwardOp {
 public:
  explicit Permute(std::span<const int> order) : order_(order.begin(), order.end()) {}
  std::string_view name() const override { return "permute"; }
  bool native(DType) const override { return true; }
  std::vector<Tensor> forward(Context&, std::span<const Tensor> inputs) override {
    const Tensor& x = inputs[0];
    std::vector<int> sorted = order_, all(static_cast<size_t>(x.shape().dims()));
    std::sort(sorted.begin(), sorted.end());
    std::iota(all.begin(), all.end(), 0);
    WEFT_CHECK(sorted == all, "permute of {}: not an order of its dims", x.shape().to_string());
    Shape shape;
    std::vector<int64_t> strides;
    for (const int dim : order_) {
      shape.push_back(x.shape()[dim]);
      strides.push_back(x.strides()[static_cast<size_t>(dim)]);
    }
    return {x.view(shape, strides, 0)};
  }
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    std::vector<int> inverse(order_.size());
    for (size_t i = 0; i < order_.size(); ++i)
      inverse[static_cast<size_t>(order_[i])] = static_cast<int>(i);
    return {permute(cx, output_grads[0], inverse)};
  }

 private:
  const std::vector<int> order_;
};

class Slice final : public ForwardOp {
 public:
  Slice(int dim, int64_t start, int64_t length) : dim_(dim), start_(start), length_(length) {}
  std::string_view name() const override { return "slice"; }
  bool native(DType) const override { return true; }
  std::vector<Tensor> forward(Context&, std::span<const Tensor> inputs) override {
    return {narrowed(inputs[0], dim_, start_, length_)};
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    extent_ = inputs[0].shape()[dim_];
    return {};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    return {pad(cx, output_grads[0], dim_, start_, extent_ - start_ - length_)};
  }

 private:
  const int dim_;
  const int64_t start_, length_;
  int64_t extent_ = 0;
};

// All parts of one dim as views; their gradients come back in one piece.
class SplitOp final : public ForwardOp {
 public:
  SplitOp(int dim, std::span<const int64_t> lengths)
      : dim_(dim), lengths_(lengths.begin(), lengths.end()) {}
  std::string_view name() const override { return "split"; }
  bool native(DType) const override { return true; }
  std::vector<Tensor> forward(Context&, std::span<const Tensor> inputs) override {
    std::vector<Tensor> parts;
    int64_t start = 0;
    for (const int64_t length : lengths_) {
      parts.push_back(narrowed(inputs[0], dim_, start, length));
      start += length;
    }
    WEFT_CHECK(start == inputs[0].shape()[dim_], "parts of {} along dim {} of {}", start, dim_,
               inputs[0].shape().to_string());
    return parts;
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    spec_ = inputs[0].spec();
    return {};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    Tensor whole = Tensor::empty(cx.allocator, spec_.shape, spec_.dtype);
    int64_t start = 0;
    for (size_t i = 0; i < lengths_.size(); ++i) {
      const Tensor part = narrowed(whole, dim_, start, lengths_[i]);
      const Tensor& dy = output_grads[i];
      copy_into(cx.pool, dy ? dy : Tensor::zeros(cx.allocator, part.shape(), spec_.dtype), part);
      start += lengths_[i];
    }
    return {whole};
  }

 private:
  const int dim_;
  const std::vector<int64_t> lengths_;
  TensorSpec spec_;
};

class Concat final : public ForwardOp {
 public:
  explicit Concat(int dim) : dim_(dim) {}
  std::string_view name() const override { return "concat"; }
  bool native(DType) const override { return true; }
  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    Shape shape = inputs[0].shape();
    shape[dim_] = 0;
    for (const Tensor& part : inputs) shape[dim_] += part.shape()[dim_];
    Tensor whole = Tensor::empty(cx.allocator, shape, inputs[0].dtype());
    int64_t start = 0;
    for (const Tensor& part : inputs) {
      copy_into(cx.pool, part, narrowed(whole, dim_, start, part.shape()[dim_]));
      start += part.shape()[dim_];
    }
    return {whole};
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    for (const Tensor& part : inputs) lengths_.push_back(part.shape()[dim_]);
    return {};
  }
  std::vector<Tensor> vjp(Context&, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    std::vector<Tensor> grads;
    int64_t start = 0;
    for (const int64_t length : lengths_) {
      grads.push_back(narrowed(output_grads[0], dim_, start, length));
      start += length;
    }
    return grads;
  }

 private:
  const int dim_;
  std::vector<int64_t> lengths_;
};

class Pad final : public ForwardOp {
 public:
  Pad(int dim, int64_t before, int64_t after) : dim_(dim), before_(before), after_(after) {}
  std::string_view name() const override { return "pad"; }
  bool native(DType) const override { return true; }
  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    const Tensor& x = inputs[0];
    Shape shape = x.shape();
    length_ = shape[dim_];
    shape[dim_] += before_ + after_;
    Tensor padded = Tensor::zeros(cx.allocator, shape, x.dtype());
    copy_into(cx.pool, x, narrowed(padded, dim_, before_, length_));
    return {padded};
  }
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }
  std::vector<Tensor> vjp(Context&, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    return {narrowed(output_grads[0], dim_, before_, length_)};
  }

 private:
  const int dim_;
  const int64_t before_, after_;
  int64_t length_ = 0;
};

class Contiguous final : public ForwardOp {
 public:
  std::string_view name() const override { return "contiguous"; }
  bool native(DType) const override { return true; }
  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    return {clone(cx.pool, inputs[0])};
  }
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }
  std::vector<Tensor> vjp(Context&, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    return {output_grads[0]};
  }
};

class Cast final : public ForwardOp {
 public:
  explicit Cast(DType dtype) : dtype_(dtype) {}
  std::string_view name() const override { return "cast"; }
  bool native(DType) const override { return true; }
  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    return {cpu::converted(cx.pool, inputs[0], dtype_)};
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    from_ = inputs[0].dtype();
    return {};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    return {cast(cx, output_grads[0], from_)};
  }

 private:
  const DType dtype_;
  DType from_ = DType::kF32;
};

}  // namespace

Tensor reshape(Context& cx, const Tensor& x, Shape shape) { return run<Reshape>(cx, {x}, shape); }

Tensor permute(Context& cx, const Tensor& x, std::span<const int> order) {
  return run<Permute>(cx, {x}, order);
}

Tensor slice(Context& cx, const Tensor& x, int dim, int64_t start, int64_t length) {
  return run<Slice>(cx, {x}, positive_dim(dim, x.shape()), start, length);
}

std::vector<Tensor> split(Context& cx, const Tensor& x, int dim, std::span<const int64_t> lengths) {
  return apply(cx, std::make_unique<SplitOp>(positive_dim(dim, x.shape()), lengths), {x});
}

Tensor concat(Context& cx, std::span<const Tensor> parts, int dim) {
  WEFT_CHECK(!parts.empty(), "concat of nothing");
  return run<Concat>(cx, {parts.begin(), parts.end()}, positive_dim(dim, parts[0].shape()));
}

Tensor pad(Context& cx, const Tensor& x, int dim, int64_t before, int64_t after) {
  return run<Pad>(cx, {x}, positive_dim(dim, x.shape()), before, after);
}

Tensor contiguous(Context& cx, const Tensor& x) {
  return x.contiguous() ? x : run<Contiguous>(cx, {x});
}

Tensor cast(Context& cx, const Tensor& x, DType dtype) {
  return x.dtype() == dtype ? x : run<Cast>(cx, {x}, dtype);
}

}  // namespace weft::ops
