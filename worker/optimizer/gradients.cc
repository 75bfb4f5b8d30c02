#include "worker/optimizer/gradients.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/ops/ops.h"

namespace weft {
namespace {

constexpr int64_t kBucketElements = int64_t{4} << 20;

// The gradient as a contiguous fp32 tensor; zeros where there is none.
Tensor whole_gradient(Rank& rank, const Parameter& parameter) {
  Tensor gradient = parameter.value.grad();
  if (!gradient) return Tensor::zeros(*rank.allocator, parameter.value.shape());
  if (gradient.contiguous()) return gradient;
  Context cx = rank.context();
  return ops::contiguous(cx, gradient);
}

void sum_bucket(Communicator& comm, Allocator& allocator, std::span<Tensor> gradients) {
  int64_t elements = 0;
  for (const Tensor& gradient : gradients) elements += gradient.elements();
  if (elements == 0) return;
  Tensor flat = Tensor::empty(allocator, {elements});
  float* at = flat.data<float>();
  for (const Tensor& gradient : gradients) {
    if (gradient.elements() > 0) std::memcpy(at, gradient.raw(), gradient.bytes());
    at += gradient.elements();
  }
  comm.all_reduce(flat, ReduceOp::kSum);
  at = flat.data<float>();
  for (const Tensor& gradient : gradients) {
    if (gradient.elements() > 0) std::memcpy(gradient.raw(), at, gradient.bytes());
    at += gradient.elements();
  }
}

void sum_over(Communicator& comm, Allocator& allocator, std::vector<Tensor>& gradients) {
  if (comm.size() == 1) return;
  size_t begin = 0;
  while (begin < gradients.size()) {
    size_t end = begin;
    int64_t elements = 0;
    while (end < gradients.size() &&
           (end == begin || elements + gradients[end].elements() <= kBucketElements)) {
      elements += gradients[end++].elements();
    }
    sum_bucket(comm, allocator, std::span(gradients).subspan(begin, end - begin));
    begin = end;
  }
}

double sum_of_squares(Rank& rank, const Tensor& gradient) {
  constexpr int64_t kBlock = 1 << 14;  // fixed, so that the sum does not depend on the pool's size
  const float* values = gradient.data<float>();
  const int64_t blocks = (gradient.elements() + kBlock - 1) / kBlock;
  std::vector<double> partial(static_cast<size_t>(blocks), 0.0);
  rank.pool->parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t stop = std::min(gradient.elements(), (block + 1) * kBlock);
      double sum = 0;
      for (int64_t i = block * kBlock; i < stop; ++i) sum += double{values[i]} * double{values[i]};
      partial[static_cast<size_t>(block)] = sum;
    }
  });
  double sum = 0;
  for (double value : partial) sum += value;
  return sum;
}

}  // namespace

void reduce_gradients(Rank& rank, std::span<Parameter> parameters) {
  std::vector<Tensor> gradients;
  std::vector<Tensor> partial;
  for (Parameter& parameter : parameters) {
    Tensor gradient = whole_gradient(rank, parameter);
    parameter.value.set_grad(gradient);
    if (parameter.info.partial_over_tensor) partial.push_back(gradient);
    gradients.push_back(std::move(gradient));
  }
  sum_over(rank.mesh.axis(Axis::kReplica), *rank.allocator, gradients);
  sum_over(rank.mesh.axis(Axis::kTensor), *rank.allocator, partial);
}

double global_gradient_norm(Rank& rank, std::span<Parameter> parameters) {
  Communicator& tensor = rank.mesh.axis(Axis::kTensor);
  double squares = 0;
  for (const Parameter& parameter : parameters) {
    const Tensor gradient = parameter.value.grad();
    if (!gradient || (parameter.info.shard.whole() && tensor.rank() != 0)) continue;
    squares += sum_of_squares(rank, whole_gradient(rank, parameter));
  }
  Tensor total = Tensor::full(*rank.allocator, {1}, squares, DType::kF64);
  if (tensor.size() > 1) tensor.all_reduce(total, ReduceOp::kSum);
  return std::sqrt(*total.data<double>());
}

double clip_factor(double norm, double norm_max) {
  if (norm_max <= 0) return 1.0;
  return std::min(1.0, norm_max / (norm + 1e-6));
}

void clear_gradients(std::span<Parameter> parameters) {
  for (Parameter& parameter : parameters) parameter.value.set_grad(Tensor());
}

}  // namespace weft
