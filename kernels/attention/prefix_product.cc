#include <algorithm>
#include <vector>

#include "kernels/attention/linear.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"

namespace weft::attention {
namespace {

constexpr int64_t kChunk = 64;

// One sequence: q, k [T, D], v and y [T, M].
template <typename T>
class Sequence {
 public:
  Sequence(ThreadPool& pool, int64_t features, int64_t values, bool reversed)
      : pool_(pool),
        d_(features),
        m_(values),
        reversed_(reversed),
        scores_(static_cast<size_t>(kChunk * kChunk)),
        state_(static_cast<size_t>(features * values)) {}

  void run(int64_t tokens, const T* q, const T* k, const T* v, T* y) {
    std::fill(state_.begin(), state_.end(), T{0});
    const int64_t chunks = (tokens + kChunk - 1) / kChunk;
    for (int64_t i = 0; i < chunks; ++i) {
      const int64_t first = (reversed_ ? chunks - 1 - i : i) * kChunk;
      chunk(std::min(kChunk, tokens - first), q + first * d_, k + first * d_, v + first * m_,
            y + first * m_);
    }
  }

 private:
  // y := (masked q k^T) v + q state; state += k^T v.
  void chunk(int64_t n, const T* q, const T* k, const T* v, T* y) {
    cpu::gemm<T, T>(pool_, n, n, d_, {q, d_, false}, {k, d_, true}, scores_.data(), n);
    for (int64_t i = 0; i < n; ++i) {
      T* row = scores_.data() + i * n;
      std::fill(reversed_ ? row : row + i + 1, reversed_ ? row + i : row + n, T{0});
    }
    cpu::gemm<T, T>(pool_, n, m_, n, {scores_.data(), n, false}, {v, m_, false}, y, m_);
    cpu::gemm<T, T>(pool_, n, m_, d_, {q, d_, false}, {state_.data(), m_, false}, y, m_, true);
    cpu::gemm<T, T>(pool_, d_, m_, n, {k, d_, true}, {v, m_, false}, state_.data(), m_, true);
  }

  ThreadPool& pool_;
  const int64_t d_, m_;
  const bool reversed_;
  std::vector<T> scores_, state_;  // [n, n], [D, M]
};

class PrefixProduct final : public Op {
 public:
  explicit PrefixProduct(bool reversed) : reversed_(reversed) {}
  std::string_view name() const override { return "prefix_product"; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).prefix_product(inputs[0], inputs[1], inputs[2], reversed_, outputs[0]);
  }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    const Shape &q = inputs[0].shape(), &v = inputs[2].shape();
    Shape shape = q, expected = v;
    shape[-1] = v[-1];
    expected[-1] = q[-1];
    WEFT_CHECK(q.dims() >= 2 && inputs[1].shape() == q && expected == q,
               "prefix_product of {}, {} and {}", q.to_string(), inputs[1].shape().to_string(),
               v.to_string());
    return {{shape, inputs[0].dtype()}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor q = as_contiguous(cx.pool, inputs[0]), k = as_contiguous(cx.pool, inputs[1]);
    const Tensor v = as_contiguous(cx.pool, inputs[2]);
    const int64_t tokens = q.dim(-2), features = q.dim(-1), values = v.dim(-1);
    if (outputs[0].elements() == 0) return;
    dispatch_floating(q.dtype(), [&]<typename T>() {
      cx.pool.parallel_for(ops::row_count(q.shape()) / tokens, 1, [&](int64_t begin, int64_t end) {
        Sequence<T> sequence(cx.pool, features, values, reversed_);
        for (int64_t row = begin; row < end; ++row) {
          const int64_t at = row * tokens;
          sequence.run(tokens, q.data<T>() + at * features, k.data<T>() + at * features,
                       v.data<T>() + at * values, outputs[0].data<T>() + at * values);
        }
      });
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    return {inputs.begin(), inputs.end()};
  }
  // dq_i = sum_{j <= i} (dy_i . v_j) k_j, dk_j = sum_{i >= j} (v_j . dy_i) q_i,
  // dv_j = sum_{i >= j} (k_j . q_i) dy_i
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2], &dy = output_grads[0];
    return {prefix_product(cx, dy, v, k, reversed_), prefix_product(cx, v, dy, q, !reversed_),
            prefix_product(cx, k, q, dy, !reversed_)};
  }

 private:
  const bool reversed_;
};

}  // namespace

Tensor prefix_product(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                      bool reversed) {
  return ops::run<PrefixProduct>(cx, {q, k, v}, reversed);
}

}  // namespace weft::attention
