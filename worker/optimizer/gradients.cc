#include "worker/optimizer/gradients.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu/update.h"
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

// The squares of each gradient, added up in blocks of a fixed size, so that the sum does not depend
// on the pool's.
double sum_of_squares(Rank& rank, std::span<const Tensor> gradients) {
  constexpr int64_t kBlock = 1 << 14;
  struct Block {
    const float* data;
    int64_t count;
  };
  std::vector<Block> blocks;
  for (const Tensor& gradient : gradients) {
    const float* data = gradient.data<float>();
    for (int64_t at = 0; at < gradient.elements(); at += kBlock) {
      blocks.push_back({data + at, std::min(kBlock, gradient.elements() - at)});
    }
  }
  std::vector<double> partial(blocks.size(), 0.0);
  rank.pool->parallel_for(std::ssize(blocks), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      partial[i] = cpu::update().sum_of_squares(blocks[i].data, blocks[i].count);
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
  std::vector<Tensor> counted;
  for (const Parameter& parameter : parameters) {
    if (!parameter.value.grad() || (parameter.info.shard.whole() && tensor.rank() != 0)) continue;
    counted.push_back(whole_gradient(rank, parameter));
  }
  const double squares = sum_of_squares(rank, counted);
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
