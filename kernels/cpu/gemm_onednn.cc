#include <omp.h>

#include <algorithm>
#include <dnnl.hpp>
#include <new>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels/cpu/gemm_libraries.h"
#include "kernels/cpu/tiles.h"
#include "proto/base/check.h"

namespace weft::cpu {
namespace {

using dnnl::memory;

// Everything that the generated code of one product depends on.
struct Key {
  int64_t m, n, k, a_stride, b_stride, out_stride;
  bool a_transposed, b_transposed, accumulate;
  float factor;
  memory::data_type in, out;
  bool operator==(const Key&) const = default;
};

struct KeyHash {
  size_t operator()(const Key& key) const {
    size_t hash = 0;
    for (const int64_t part :
         {key.m, key.n, key.k, key.a_stride, key.b_stride, key.out_stride,
          int64_t{key.a_transposed}, int64_t{key.b_transposed}, int64_t{key.accumulate},
          static_cast<int64_t>(key.in), static_cast<int64_t>(key.out)}) {
      hash = (hash ^ static_cast<size_t>(part)) * 0x9E3779B97F4A7C15ULL;
      hash ^= hash >> 29;
    }
    return hash;
  }
};

// A product made ready: its code and the handles into which pointers are put.
struct Ready {
  dnnl::matmul code;
  memory a, b, out, scratch;
  size_t scratch_bytes = 0;
};

constexpr size_t kReadyMax = 1024;

// What one thread keeps. Code is shared between threads by the library's own cache.
class Thread {
 public:
  Thread() : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) { omp_set_num_threads(1); }

  void run(const Key& key, const void* a, const void* b, void* out) {
    auto found = ready_.find(key);
    if (found == ready_.end()) {
      if (ready_.size() >= kReadyMax) ready_.clear();
      found = ready_.emplace(key, make(key)).first;
    }
    Ready& ready = found->second;
    if (scratch_.size() < ready.scratch_bytes) scratch_.resize(ready.scratch_bytes);
    ready.a.set_data_handle(const_cast<void*>(a));
    ready.b.set_data_handle(const_cast<void*>(b));
    ready.out.set_data_handle(out);
    ready.scratch.set_data_handle(scratch_.data());
    ready.code.execute(stream_, {{DNNL_ARG_SRC, ready.a},
                                 {DNNL_ARG_WEIGHTS, ready.b},
                                 {DNNL_ARG_DST, ready.out},
                                 {DNNL_ARG_SCRATCHPAD, ready.scratch}});
  }

 private:
  Ready make(const Key& key) const {
    const auto matrix = [](memory::data_type type, int64_t rows, int64_t columns, int64_t stride,
                           bool transposed) {
      const memory::dims strides = transposed ? memory::dims{1, stride} : memory::dims{stride, 1};
      return memory::desc({rows, columns}, type, strides);
    };
    const memory::desc a = matrix(key.in, key.m, key.k, key.a_stride, key.a_transposed);
    const memory::desc b = matrix(key.in, key.k, key.n, key.b_stride, key.b_transposed);
    const memory::desc out = matrix(key.out, key.m, key.n, key.out_stride, false);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    dnnl::post_ops after;
    if (key.factor != 1) {
      after.append_eltwise(1.0F, dnnl::algorithm::eltwise_linear, key.factor, 0.0F);
    }
    if (key.accumulate) after.append_sum(1.0F);
    attributes.set_post_ops(after);
    const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(a, b, out), attributes,
                                                   engine_);
    const memory::desc scratch = description.scratchpad_desc();
    return {dnnl::matmul(description),         memory(a, engine_, nullptr),
            memory(b, engine_, nullptr),       memory(out, engine_, nullptr),
            memory(scratch, engine_, nullptr), scratch.get_size()};
  }

  dnnl::engine engine_;
  dnnl::stream stream_;
  std::unordered_map<Key, Ready, KeyHash> ready_;
  std::vector<char> scratch_;
};

Thread& this_thread() {
  thread_local Thread thread;
  return thread;
}

template <typename T>
constexpr memory::data_type kType =
    std::is_same_v<T, float> ? memory::data_type::f32 : memory::data_type::bf16;

template <typename T, typename Out>
void by_primitive(Thread& thread, const Product<T, Out>& p) {
  try {
    thread.run({p.m, p.n, p.k, p.a.row_stride, p.b.row_stride, p.out_stride, p.a.transposed,
                p.b.transposed, p.accumulate, p.factor, kType<T>, kType<Out>},
               p.a.data, p.b.data, p.out);
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_out_of_memory) throw std::bad_alloc();
    throw;
  }
}

void by_sgemm(const Product<float>& p) {
  const dnnl::status status = dnnl::sgemm(
      p.a.transposed ? 'T' : 'N', p.b.transposed ? 'T' : 'N', p.m, p.n, p.k, p.factor, p.a.data,
      p.a.row_stride, p.b.data, p.b.row_stride, p.accumulate ? 1.0F : 0.0F, p.out, p.out_stride);
  if (status == dnnl::status::out_of_memory) throw std::bad_alloc();
  WEFT_CHECK(status == dnnl::status::success, "oneDNN's sgemm of {} x {} x {}: status {}", p.m, p.n,
             p.k, static_cast<int>(status));
}

// A transposed b as it is multiplied, which the library would pack anew, and slowly, for each of
// the tiles that share it: kept for those that follow on this thread. What is worth turning for a
// tile was so for the one before with no fewer rows, hence what is kept is of this product.
class Turned {
 public:
  Matrix<float> of(const Product<float>& p) {
    // Rows that do not share the sets of a cache.
    const int64_t stride = (p.n + kTileLanes - 1) / kTileLanes * kTileLanes + kTileLanes / 4;
    if (!p.same_b || p.b.data != data_ || p.n != n_) {
      room_.resize(std::max(room_.size(), static_cast<size_t>(stride * p.k)));
      for (int64_t column = 0; column < p.n; column += kTileLanes) {
        tiles_at<float>(level()).transpose({p.b.from(0, column).data, p.b.row_stride},
                                           std::min(kTileLanes, p.n - column), p.k,
                                           room_.data() + column, stride);
      }
      data_ = p.b.data;
      n_ = p.n;
    }
    return {room_.data(), stride, false};
  }

 private:
  std::vector<float> room_;
  const float* data_ = nullptr;
  int64_t n_ = 0;
};

// Whether turning b costs less than what a product that packs it loses, and takes little room.
bool worth_turning(const Product<float>& p) {
  constexpr int64_t kRowsMin = 64, kElementsMax = int64_t{1} << 21;
  return p.m >= kRowsMin && p.n <= kElementsMax / p.k &&
         gemm_class(p.m, p.n, p.k) == GemmClass::kLarge;
}

bool generates(dnnl::cpu_isa isa) {
  const auto has = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  return (has & static_cast<unsigned>(isa)) == static_cast<unsigned>(isa);
}

}  // namespace

void multiply_onednn(const Product<float>& p) {
  if (p.b.transposed && worth_turning(p)) {
    thread_local Turned turned;
    Product<float> plain = p;
    plain.b = turned.of(p);
    this_thread();  // has the library use one thread
    return by_sgemm(plain);
  }
  Thread& thread = this_thread();
  // The primitive packs a transposed b, for which sgemm is slow; else sgemm leads, and it alone
  // adds and scales in place.
  if (p.b.transposed && !p.accumulate && p.factor == 1.0F) return by_primitive(thread, p);
  by_sgemm(p);
}

void multiply_onednn(const Product<bfloat16, float>& p) { by_primitive(this_thread(), p); }
void multiply_onednn(const Product<bfloat16>& p) { by_primitive(this_thread(), p); }

bool onednn_has_avx512() { return generates(dnnl::cpu_isa::avx512_core); }
bool onednn_has_avx512_bf16() { return generates(dnnl::cpu_isa::avx512_core_bf16); }

}  // namespace weft::cpu
