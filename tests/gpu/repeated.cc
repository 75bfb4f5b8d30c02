#include "tests/gpu/repeated.h"

#include <algorithm>
#include <array>
#include <numbers>
#include <numeric>
#include <vector>

#include "kernels/tensor/stream.h"

namespace weft::gpu {
namespace {

double unit_at(uint32_t index) {
  uint32_t x = index;
  x = (x ^ (x >> 16)) * 0x85EBCA6B;
  x = (x ^ (x >> 13)) * 0xC2B2AE35;
  x ^= x >> 16;
  return (static_cast<double>(x >> 8) * 0x1p-23 - 1) * std::numbers::sqrt3;
}

Tensor run_of(const Tensor& x, int64_t start, int64_t length) {
  return x.view({length}, std::array<int64_t, 1>{1}, start);
}

}  // namespace

const Tensor& Repeated::block(double deviation) {
  Tensor& block = blocks_[deviation];
  if (!block) {
    std::vector<float> values(kBlock);
    for (uint32_t i = 0; i < kBlock; ++i) values[i] = static_cast<float>(deviation * unit_at(i));
    block = Tensor::from<float>(allocator_, {kBlock}, values);
  }
  return block;
}

void Repeated::fill(const Tensor& target, int64_t start, double deviation) {
  const Tensor& values = block(deviation);
  for (int64_t at = 0; at < target.elements();) {
    const int64_t from = (start + at) % kBlock;
    const int64_t length = std::min(kBlock - from, target.elements() - at);
    allocator_.stream()->copy(run_of(values, from, length), run_of(target, at, length));
    at += length;
  }
}

void Repeated::fill(std::span<Parameter> parameters) {
  for (const Parameter& each : parameters) {
    if (each.info.initializer == Initializer::kNormal) {
      const int64_t sum = std::accumulate(each.info.name.begin(), each.info.name.end(), int64_t{0});
      fill(each.value, 7919 * sum, each.info.deviation);
    } else {
      each.value.fill(each.info.initializer == Initializer::kOnes ? 1 : 0);
    }
  }
}

}  // namespace weft::gpu
