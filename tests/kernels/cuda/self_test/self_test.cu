#include "tests/kernels/cuda/self_test/self_test.h"

#include <cmath>
#include <cstring>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "tests/kernels/cuda/self_test/both.h"
#include "tests/testing/cuda_on_cpu/meaning.h"

namespace weft::cuda {
namespace {

using cuda_on_cpu::Element;
using cuda_on_cpu::Lanes;

// ---- conversions
__global__ void narrow_kernel(const float* in, uint32_t* out, int n) {
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) {
    out[4 * i] = narrow_pair<bfloat16>(in[i], -in[i]);
    out[4 * i + 1] = narrow_pair<float16>(in[i], -in[i]);
    out[4 * i + 2] = narrow_tf32(in[i]);
    out[4 * i + 3] = static_cast<uint32_t>(narrow<bfloat16>(in[i]).bits) |
                     static_cast<uint32_t>(narrow<float16>(in[i]).bits) << 16;
  }
}

// ---- powers of two
__global__ void exp2_kernel(const float* in, float* out, int n) {
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) {
    out[i] = exp2_fast(in[i]);
  }
}

std::string check_powers() {
  Both<float> in(4096), out(4096);
  for (size_t i = 0; i < in.host.size(); ++i) {
    in.host[i] = static_cast<float>(i) * 0.0625F - 200.0F + std::sin(static_cast<float>(i));
  }
  in.host[0] = -INFINITY;
  launch(nullptr, 1, 256, exp2_kernel, in.sent(), out.sent(), static_cast<int>(in.host.size()));
  out.fetch();
  for (size_t i = 0; i < in.host.size(); ++i) {
    const double got = static_cast<double>(out.host[i]);
    double due = std::exp2(static_cast<double>(in.host[i]));
    if (due < 1.1754943508222875e-38) due = 0;
    if (!(std::abs(got - due) <= 0x1p-22 * due)) return differs_at(i, got, due);
  }
  return "";
}

std::string check_conversions() {
  Both<float> in(4096);
  Both<uint32_t> out(4 * in.host.size());
  uint32_t state = 1;
  for (size_t i = 0; i < in.host.size(); ++i) {
    state = state * 1664525U + 1013904223U;
    // Ties, carries into the exponent, subnormals of both types, the largest.
    uint32_t word = i % 4 == 0 ? state & 0xFFFF8000U : state;
    if ((word & 0x7F800000U) == 0x7F800000U) word = 0x477FE000U + static_cast<uint32_t>(i);
    std::memcpy(&in.host[i], &word, sizeof(word));
  }
  launch(nullptr, 1, 256, narrow_kernel, in.sent(), out.sent(), static_cast<int>(in.host.size()));
  out.fetch();
  for (size_t i = 0; i < in.host.size(); ++i) {
    const float x = in.host[i];
    const uint32_t bf16 = bfloat16(x).bits, f16 = float16(x).bits;
    const uint32_t expected[4] = {bf16 | uint32_t{bfloat16(-x).bits} << 16,
                                  f16 | uint32_t{float16(-x).bits} << 16,
                                  cuda_on_cpu::round_to_tf32(x), bf16 | f16 << 16};
    for (size_t j = 0; j < 4; ++j) {
      if (out.host[4 * i + j] != expected[j]) {
        return differs_at(4 * i + j, out.host[4 * i + j], expected[j]);
      }
    }
  }
  return "";
}

// The bits alone and, in either place, beside their complement.
template <typename T>
__device__ void widen_bits(unsigned bits, float* out) {
  Vector<T, 2> pair;
  pair.at[bits % 2].bits = static_cast<uint16_t>(bits);
  pair.at[1 - bits % 2].bits = static_cast<uint16_t>(~bits);
  out[0] = widen(pair.at[bits % 2]);
  out[2] = widened(packed(pair)).at[bits % 2];
}
__global__ void widen_kernel(float* out) {
  for (unsigned i = threadIdx.x; i < 65536; i += blockDim.x) {
    widen_bits<bfloat16>(i, out + 4 * i);
    widen_bits<float16>(i, out + 4 * i + 1);
  }
}

std::string check_widening() {
  Both<float> out(4 * 65536);
  launch(nullptr, 1, 256, widen_kernel, out.sent());
  out.fetch();
  for (uint32_t i = 0; i < 65536; ++i) {
    for (unsigned k = 0; k < 4; ++k) {
      const Element kind = k % 2 == 0 ? Element::kBfloat16 : Element::kFloat16;
      const float want = cuda_on_cpu::element_of(kind, i, 0), got = out.host[4 * i + k];
      if (got != want && !(std::isnan(got) && std::isnan(want))) {
        return differs_at(4 * i + k, static_cast<double>(got), static_cast<double>(want));
      }
    }
  }
  return "";
}

// ---- copies: a warp copies bytes 0 to 16 of each chunk, in two groups.
__global__ void copy_kernel(const float* in, float* out) {
  float* stage = shared_memory<float>();
  const int thread = static_cast<int>(threadIdx.x);
  copy_16(stage + 4 * thread, in + 4 * thread, thread % 17);
  copies_commit();
  copy_16(stage + 128 + 4 * thread, in + 128 + 4 * thread, 16);
  copies_commit();
  copies_wait<1>();
  __syncthreads();
  for (int i = thread; i < 128; i += 32) out[i] = stage[i];
  copies_wait<0>();
  __syncthreads();
  for (int i = thread; i < 128; i += 32) out[128 + i] = stage[128 + i];
}

std::string check_copies() {
  Both<float> in(256), out(256);
  for (size_t i = 0; i < 256; ++i) in.host[i] = 1.0F + static_cast<float>(i);
  launch_shared(nullptr, 1, 32, 256 * sizeof(float), copy_kernel, in.sent(), out.sent());
  out.fetch();
  std::vector<float> expected = in.host;
  for (size_t thread = 0; thread < 32; ++thread) {
    char chunk[16] = {};
    std::memcpy(chunk, &in.host[4 * thread], thread % 17);
    std::memcpy(&expected[4 * thread], chunk, 16);
  }
  for (size_t i = 0; i < 256; ++i) {
    if (std::memcmp(&out.host[i], &expected[i], sizeof(float)) != 0) {
      return differs_at(i, static_cast<double>(out.host[i]), static_cast<double>(expected[i]));
    }
  }
  return "";
}

// ---- matrix loads: 32 rows of 8 elements that all differ.
__global__ void load_kernel(const uint16_t* in, uint32_t* out) {
  uint16_t* stage = shared_memory<uint16_t>();
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += 32) stage[i] = in[i];
  __syncthreads();
  uint32_t plain[4], transposed[4];
  load_matrices(plain, stage + 8 * lane);
  load_matrices_transposed(transposed, stage + 8 * lane);
  for (int i = 0; i < 4; ++i) {
    out[8 * lane + i] = plain[i];
    out[8 * lane + 4 + i] = transposed[i];
  }
}

std::string check_loads() {
  Both<uint16_t> in(256);
  Both<uint32_t> out(256);
  for (size_t i = 0; i < 256; ++i) in.host[i] = static_cast<uint16_t>(257 * i + 1);
  launch_shared(nullptr, 1, 32, 512, load_kernel, in.sent(), out.sent());
  out.fetch();
  for (const size_t transposed : {size_t{0}, size_t{1}}) {
    Lanes<const void*> rows;
    uint32_t words[32][4];
    Lanes<uint32_t*> r;
    for (size_t lane = 0; lane < 32; ++lane) {
      rows[lane] = &in.host[8 * lane];
      r[lane] = words[lane];
    }
    cuda_on_cpu::load_matrices_of(rows, transposed == 1, r);
    for (size_t i = 0; i < 128; ++i) {
      const size_t at = i / 4 * 8 + 4 * transposed + i % 4;
      if (out.host[at] != words[i / 4][i % 4]) {
        return differs_at(at, out.host[at], words[i / 4][i % 4]);
      }
    }
  }
  return "";
}

// ---- products: operands lane by lane, a [32, 4], b [32, 2], d [32, 4].
template <Element kKind>
__global__ void product_kernel(const uint32_t* a, const uint32_t* b, float* d) {
  const unsigned lane = threadIdx.x;
  uint32_t fa[4], fb[2];
  float fd[4];
  for (unsigned i = 0; i < 4; ++i) fa[i] = a[4 * lane + i];
  for (unsigned i = 0; i < 2; ++i) fb[i] = b[2 * lane + i];
  for (unsigned i = 0; i < 4; ++i) fd[i] = d[4 * lane + i];
  if constexpr (kKind == Element::kBfloat16) multiply_add<bfloat16>(fd, fa, fb);
  if constexpr (kKind == Element::kFloat16) multiply_add<float16>(fd, fa, fb);
  if constexpr (kKind == Element::kTf32) multiply_add_tf32(fd, fa, fb);
  for (unsigned i = 0; i < 4; ++i) d[4 * lane + i] = fd[i];
}

uint32_t word_of(Element kind, float low, float high) {
  if (kind == Element::kBfloat16) {
    return uint32_t{bfloat16(low).bits} | uint32_t{bfloat16(high).bits} << 16;
  }
  if (kind == Element::kFloat16) {
    return uint32_t{float16(low).bits} | uint32_t{float16(high).bits} << 16;
  }
  return cuda_on_cpu::round_to_tf32(low);
}

// Small integers, whose sums every order of additions gets exactly; fractions; and fractions of
// many sizes, whose sums have the bits of compute capability 9.0 only as it cuts them off.
enum class Values { kIntegers, kFractions, kSizes };

template <Element kKind>
std::string check_products(Values values) {
  Both<uint32_t> a(128), b(64);
  Both<float> d(128);
  const auto value = [values](size_t i) {
    if (values == Values::kIntegers) return static_cast<float>(static_cast<int>(i * 37 % 17) - 8);
    const float fraction = std::sin(static_cast<float>(i));
    return values == Values::kSizes ? std::ldexp(fraction, static_cast<int>(i * 29 % 11) - 5)
                                    : fraction;
  };
  for (size_t i = 0; i < 128; ++i) a.host[i] = word_of(kKind, value(2 * i), value(2 * i + 1));
  for (size_t i = 0; i < 64; ++i) b.host[i] = word_of(kKind, value(3 * i + 5), value(7 * i + 1));
  for (size_t i = 0; i < 128; ++i) d.host[i] = value(5 * i + 2);
  std::vector<float> expected = d.host;
  Lanes<float*> to;
  Lanes<const uint32_t*> left, right;
  for (size_t lane = 0; lane < 32; ++lane) {
    to[lane] = &expected[4 * lane];
    left[lane] = &a.host[4 * lane];
    right[lane] = &b.host[2 * lane];
  }
  launch(nullptr, 1, 32, product_kernel<kKind>, a.sent(), b.sent(), d.sent());
  d.fetch();
  cuda_on_cpu::multiply_of(kKind, to, left, right);
  for (size_t i = 0; i < 128; ++i) {
    const double got = static_cast<double>(d.host[i]), want = static_cast<double>(expected[i]);
    if (!(std::abs(got - want) <= (values == Values::kFractions ? 1e-5 : 0)))
      return differs_at(i, got, want);
  }
  return "";
}

// ---- lanes
__global__ void lanes_kernel(unsigned* out) {
  const unsigned lane = threadIdx.x;
  out[4 * lane] = __shfl_xor_sync(0xFFFFFFFFU, lane * lane, 5);
  out[4 * lane + 1] = __ballot_sync(0xFFFFFFFFU, lane % 3 == 0);
  out[4 * lane + 2] = __match_any_sync(0xFFFFFFFFU, lane % 5);
  out[4 * lane + 3] = __shfl_down_sync(0xFFFFFFFFU, lane, 3);
}

std::string check_lanes() {
  Both<unsigned> out(128);
  launch(nullptr, 1, 32, lanes_kernel, out.sent());
  out.fetch();
  for (unsigned lane = 0; lane < 32; ++lane) {
    unsigned thirds = 0, fifths = 0;
    for (unsigned other = 0; other < 32; ++other) {
      if (other % 3 == 0) thirds |= 1U << other;
      if (other % 5 == lane % 5) fifths |= 1U << other;
    }
    const unsigned expected[4] = {(lane ^ 5U) * (lane ^ 5U), thirds, fifths,
                                  lane + 3 > 31 ? lane : lane + 3};
    for (unsigned i = 0; i < 4; ++i) {
      if (out.host[4 * lane + i] != expected[i]) {
        return differs_at(4 * lane + i, out.host[4 * lane + i], expected[i]);
      }
    }
  }
  return "";
}

}  // namespace

std::vector<SelfTestResult> self_test() {
  std::vector<SelfTestResult> results{
      {"narrow, narrow_pair, narrow_tf32", check_conversions()},
      {"exp2_fast", check_powers()},
      {"widen, widened", check_widening()},
      {"copy_16, copies_commit, copies_wait", check_copies()},
      {"load_matrices, load_matrices_transposed", check_loads()},
      {"multiply_add<bfloat16>, exactly", check_products<Element::kBfloat16>(Values::kIntegers)},
      {"multiply_add<bfloat16>", check_products<Element::kBfloat16>(Values::kFractions)},
      {"multiply_add<float16>, exactly", check_products<Element::kFloat16>(Values::kIntegers)},
      {"multiply_add<float16>", check_products<Element::kFloat16>(Values::kFractions)},
      {"multiply_add_tf32, exactly", check_products<Element::kTf32>(Values::kIntegers)},
      {"multiply_add_tf32", check_products<Element::kTf32>(Values::kFractions)},
      {"shuffles, votes, matches", check_lanes()}};
  int major = 0, minor = 0;
  expect(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  expect(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
  if (major == 9 && minor == 0) {
    results.push_back(
        {"multiply_add<bfloat16>, its bits", check_products<Element::kBfloat16>(Values::kSizes)});
    results.push_back(
        {"multiply_add<float16>, its bits", check_products<Element::kFloat16>(Values::kSizes)});
    results.push_back(
        {"multiply_add_tf32, its bits", check_products<Element::kTf32>(Values::kSizes)});
    for (SelfTestResult& result : self_test_sm90()) results.push_back(std::move(result));
  }
  return results;
}

}  // namespace weft::cuda
