// v . tanh(q + k) for every pair of query and key: the sum of the two is made a row at a time, and
// again in the backward pass, so that memory is that of the scores. Sums of the backward pass run
// in the order of queries and keys, whatever the threads.
#include <algorithm>
#include <vector>

#include "kernels/attention/scores.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/vectors.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"

namespace weft::attention {
namespace {

constexpr int64_t kFeatures = 64;  // of an item of the backward pass

struct Extents {
  int64_t batch, queries, keys, features;
  Extents(const Tensor& q, const Tensor& k)
      : batch(q.dim(0)), queries(q.dim(1)), keys(k.dim(1)), features(q.dim(2)) {}
};

// Inputs: q, k, v, the gradient of the scores; outputs: those of q and k, and of v by batch row.
class ComparedBackward final : public Kernel {
 public:
  std::string_view name() const override { return "compared_backward"; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).compared_backward(inputs[0], inputs[1], inputs[2], inputs[3], outputs[0],
                                        outputs[1], outputs[2]);
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    std::vector<Tensor> x;
    for (const Tensor& input : inputs) x.push_back(as_contiguous(cx.pool, input));
    const Extents e(x[0], x[1]);
    const int64_t parts = (e.features + kFeatures - 1) / kFeatures;
    dispatch_floating(x[0].dtype(), [&]<typename T>() {
      for (const Tensor& output : outputs) std::fill_n(output.data<T>(), output.elements(), T{0});
      cx.pool.parallel_for(e.batch * parts, 1, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
          add_features<T>(e, x, outputs, item / parts, item % parts * kFeatures);
        }
      });
    });
  }

 private:
  template <typename T>
  static void add_features(const Extents& e, const std::vector<Tensor>& x,
                           std::span<Tensor> outputs, int64_t row, int64_t first) {
    const int64_t n = std::min(kFeatures, e.features - first), width = e.features;
    const T *q = x[0].data<T>() + row * e.queries * width + first, *v = x[2].data<T>() + first;
    const T* k = x[1].data<T>() + row * e.keys * width + first;
    const T* ds = x[3].data<T>() + row * e.queries * e.keys;
    T* dq = outputs[0].data<T>() + row * e.queries * width + first;
    T *dk = outputs[1].data<T>() + row * e.keys * width + first,
      *dv = outputs[2].data<T>() + row * width + first;
    T tanh[kFeatures];
    for (int64_t i = 0; i < e.queries; ++i, q += width, dq += width, ds += e.keys) {
      for (int64_t j = 0; j < e.keys; ++j) {
        const T *key = k + j * width, slope = ds[j];
        T* d_key = dk + j * width;
        cpu::vectors<T>().binary(cpu::Binary::kAdd, q, 1, key, 1, tanh, n);
        cpu::rows<T>().curve(cpu::Curve::kTanh, tanh, tanh, n);
        for (int64_t a = 0; a < n; ++a) {
          const T inner = slope * v[a] * (T{1} - tanh[a] * tanh[a]);
          dv[a] += slope * tanh[a];
          dq[a] += inner;
          d_key[a] += inner;
        }
      }
    }
  }
};

// Inputs: q [B, Tq, A], k [B, Tk, A], v [A].
class Compared final : public Op {
 public:
  std::string_view name() const override { return "compared"; }
  bool native_on_gpu(DType) const override { return true; }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).compared(inputs[0], inputs[1], inputs[2], outputs[0]);
  }
  std::vector<TensorSpec> shape_rule(std::span<const Tensor> inputs) const override {
    const Tensor &q = inputs[0], &k = inputs[1], &v = inputs[2];
    WEFT_CHECK(q.shape().dims() == 3 && k.shape().dims() == 3 && q.dim(0) == k.dim(0) &&
                   q.dim(2) == k.dim(2) && v.shape() == Shape{q.dim(2)},
               "queries {} compared with keys {} by {}", q.shape().to_string(),
               k.shape().to_string(), v.shape().to_string());
    return {{Shape{q.dim(0), q.dim(1), k.dim(1)}, q.dtype()}};
  }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor q = as_contiguous(cx.pool, inputs[0]), k = as_contiguous(cx.pool, inputs[1]);
    const Tensor v = as_contiguous(cx.pool, inputs[2]);
    const Extents e(q, k);
    dispatch_floating(q.dtype(), [&]<typename T>() {
      const int64_t grain = 1 + 4096 / (1 + e.keys * e.features);
      cx.pool.parallel_for(e.batch * e.queries, grain, [&](int64_t begin, int64_t end) {
        std::vector<T> tanh(static_cast<size_t>(e.features));
        for (int64_t row = begin; row < end; ++row) {
          const T* key = k.data<T>() + row / e.queries * e.keys * e.features;
          for (int64_t j = 0; j < e.keys; ++j, key += e.features) {
            cpu::vectors<T>().binary(cpu::Binary::kAdd, q.data<T>() + row * e.features, 1, key, 1,
                                     tanh.data(), e.features);
            cpu::rows<T>().curve(cpu::Curve::kTanh, tanh.data(), tanh.data(), e.features);
            outputs[0].data<T>()[row * e.keys + j] =
                cpu::rows<T>().dot(tanh.data(), v.data<T>(), e.features);
          }
        }
      });
    });
  }
  std::vector<Tensor> saves(std::span<const Tensor> inputs, std::span<const Tensor>) override {
    return {inputs.begin(), inputs.end()};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor> saved,
                          std::span<const Tensor> output_grads) override {
    const Tensor &q = saved[0], &v = saved[2];
    std::vector<Tensor> grads;
    for (const Tensor& x : {q, saved[1]}) {
      grads.push_back(Tensor::empty(cx.allocator, x.shape(), x.dtype()));
    }
    grads.push_back(
        Tensor::empty(cx.allocator, Shape{q.dim(0), v.dim(0)}, gradient_dtype(v.dtype())));
    ComparedBackward kernel;
    const std::array inputs = {q, saved[1], v, output_grads[0]};
    run_kernel(cx, kernel, inputs, grads);
    grads[2] = ops::reduce_to(cx, grads[2], v.shape());
    return grads;
  }
};

}  // namespace

Tensor compared(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v) {
  return ops::run<Compared>(cx, {q, k, v});
}

}  // namespace weft::attention
