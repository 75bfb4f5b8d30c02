// The gradients beside those of q, k and v.
#include <cmath>

#include "kernels/attention/block.h"
#include "kernels/attention/problem.h"
#include "kernels/cuda/backend.h"
#include "kernels/tensor/strided.h"

namespace weft::attention {
namespace {

constexpr int64_t kKeys = 64;  // of a tile

// A tile of the bias, summed over the rows and heads that share it, in their order.
template <typename In>
class BiasGradient {
 public:
  using Sum = typename cpu::SumOf<In>::type;
  BiasGradient(const Problem<In>& problem, const Tensor& d_output, const Tensor& log_sum_exp,
               const Tensor& delta, const Tensor& gradient)
      : p_(problem),
        d_output_(d_output),
        log_sum_exp_(log_sum_exp),
        delta_(delta),
        gradient_(gradient),
        scratch_(problem.cx.allocator),
        query_lanes_(scratch_.bytes(p_.operand_bytes(kLanes, p_.e.features))),
        d_lanes_(scratch_.bytes(p_.operand_bytes(kLanes, p_.e.value_features))),
        keys_(p_.side_memory(scratch_, kKeys, p_.e.features)),
        values_(p_.side_memory(scratch_, kKeys, p_.e.value_features)),
        scores_(scratch_.of<Sum>(kKeys * kLanes)),
        d_weights_(scratch_.of<Sum>(kKeys * kLanes)),
        sums_(scratch_.of<Sum>(kKeys * kLanes)),
        extras_(p_, scratch_, kKeys) {}

  void operator()(int64_t item) {
    const int64_t columns = parts_of(p_.e.keys, kKeys), tiles = p_.e.tiles();
    const int64_t key = item % columns * kKeys, query = item / columns % tiles * kLanes;
    const int64_t slot = item / columns / tiles;
    const int64_t slot_row = slot / gradient_.dim(1), slot_head = slot % gradient_.dim(1);
    Tile tile{
        0, 0, query, std::min(kLanes, p_.e.queries - query), key, std::min(kKeys, p_.e.keys - key)};
    std::fill_n(sums_, tile.keys * kLanes, Sum{0});
    for (int64_t row = 0; row < p_.e.rows; ++row) {
      if (gradient_.dim(0) > 1 && row != slot_row) continue;
      for (int64_t head = 0; head < p_.e.heads; ++head) {
        if (gradient_.dim(1) > 1 && head != slot_head) continue;
        tile.row = row;
        tile.head = head;
        const TileView view = p_.mask.view(tile);
        if (view != TileView::kNone) add(tile, view);
      }
    }
    Sum factor[kLanes];
    std::fill_n(factor, kLanes, Sum{1});
    p_.kernels.store_lanes(
        sums_, tile.queries, tile.keys, factor,
        {gradient_.data<In>() + (slot * p_.e.queries + query) * p_.e.keys + key, p_.e.keys});
  }

 private:
  void add(const Tile& tile, TileView view) {
    const Extents& e = p_.e;
    const int64_t key_head = p_.key_head(tile.head);
    p_.kernels.pack_lanes(rows_of<const In>(p_.q, tile.row, tile.head, tile.query), tile.queries,
                          e.features, query_lanes_);
    p_.kernels.pack_lanes(rows_of<const In>(d_output_, tile.row, tile.head, tile.query),
                          tile.queries, e.value_features, d_lanes_);
    p_.kernels.scores(tile.keys, e.features, static_cast<Sum>(p_.parameters.scale),
                      p_.kernels.by_feature(rows_of<const In>(p_.k, tile.row, key_head, tile.key),
                                            tile.keys, e.features, keys_),
                      query_lanes_, scores_);
    extras_.finish_scores(tile, view, false, scores_);
    p_.kernels.scores(tile.keys, e.value_features, Sum{1},
                      p_.kernels.by_feature(rows_of<const In>(p_.v, tile.row, key_head, tile.key),
                                            tile.keys, e.value_features, values_),
                      d_lanes_, d_weights_);
    const int64_t first = (tile.row * e.heads + tile.head) * e.queries + tile.query;
    Sum lse[kLanes], delta[kLanes];
    load_tile_sums(log_sum_exp_, delta_, first, tile.queries, lse, delta);
    const cpu::GradientTerms<Sum> terms{scores_, d_weights_,         lse,
                                        delta,   extras_.keep(tile), nullptr};
    p_.kernels.gradient_only(tile.keys, terms, scores_);
    for (int64_t i = 0; i < tile.keys * kLanes; ++i) sums_[i] += scores_[i];
  }

  const Problem<In>& p_;
  const Tensor &d_output_, &log_sum_exp_, &delta_, &gradient_;
  Scratch scratch_;
  void *const query_lanes_, *const d_lanes_, *const keys_, *const values_;
  Sum *const scores_, *const d_weights_, *const sums_;
  TileExtras<In> extras_;
};

// Sums of products over the last dim.
class RowDots final : public Kernel {
 public:
  std::string_view name() const override { return "row_dots"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor a = with_tight_rows(cx, inputs[0]), b = with_tight_rows(cx, inputs[1]);
    const int64_t heads = a.dim(1), tokens = a.dim(2), tiles = parts_of(tokens, kLanes);
    dispatch_inputs(a.dtype(), [&]<typename In>() {
      using Sum = typename cpu::SumOf<In>::type;
      share_items(cx.pool, a.dim(0) * heads * tiles, [&] {
        return [&](int64_t item) {
          const int64_t tile = item % tiles, head = item / tiles, token = tile * kLanes;
          cpu::tiles<In>(a.dim(3)).dots(rows_of<const In>(a, head / heads, head % heads, token),
                                        rows_of<const In>(b, head / heads, head % heads, token),
                                        std::min(kLanes, tokens - token), a.dim(3),
                                        outputs[0].data<Sum>() + head * tokens + token);
        };
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).row_dots(inputs[0], inputs[1], outputs[0]);
  }
};

// Inputs: q, k, v, the output's gradient, log-sum-exp, delta. Output: the gradient of the bias.
class BiasKernel final : public Kernel {
 public:
  explicit BiasKernel(const Parameters& parameters) : parameters_(parameters) {}
  std::string_view name() const override { return "scaled_dot_product_bias_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const Tensor& gradient = outputs[0];
    dispatch_inputs(inputs[0].dtype(), [&]<typename In>() {
      const Problem<In> problem(cx, inputs[0], inputs[1], inputs[2], parameters_);
      const Tensor d_out = with_tight_rows(cx, inputs[3]);
      const Tensor lse = as_contiguous(cx.pool, inputs[4]),
                   dots = as_contiguous(cx.pool, inputs[5]);
      const int64_t tiles = problem.e.tiles() * parts_of(problem.e.keys, kKeys);
      share_items(cx.pool, gradient.dim(0) * gradient.dim(1) * tiles,
                  [&] { return BiasGradient<In>(problem, d_out, lse, dots, gradient); });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).attention_bias_gradient(inputs[0], inputs[1], inputs[2], inputs[3], inputs[4],
                                              inputs[5], parameters_, outputs[0]);
  }

 private:
  const Parameters& parameters_;
};

// Inputs: sinks, log-sum-exp, delta. Output: the gradient of the sinks.
class SinksKernel final : public Kernel {
 public:
  std::string_view name() const override { return "scaled_dot_product_sinks_backward"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    const int64_t rows = inputs[1].dim(0), heads = inputs[1].dim(1), queries = inputs[1].dim(2);
    const Tensor values = as_contiguous(cx.pool, inputs[0]);
    const Tensor lse = as_contiguous(cx.pool, inputs[1]), dots = as_contiguous(cx.pool, inputs[2]);
    dispatch_inputs(values.dtype(), [&]<typename In>() {
      using Sum = typename cpu::SumOf<In>::type;
      cx.pool.parallel_for(heads, 1, [&](int64_t begin, int64_t end) {
        for (int64_t head = begin; head < end; ++head) {
          const double sink = static_cast<double>(values.data<In>()[head]);
          double total = 0;
          for (int64_t row = 0; row < rows; ++row) {
            const int64_t first = (row * heads + head) * queries;
            for (int64_t i = first; i < first + queries; ++i) {
              total -= std::exp(sink - static_cast<double>(lse.data<Sum>()[i])) *
                       static_cast<double>(dots.data<Sum>()[i]);
            }
          }
          outputs[0].data<In>()[head] = static_cast<In>(total);
        }
      });
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).attention_sinks_gradient(inputs[0], inputs[1], inputs[2], outputs[0]);
  }
};

}  // namespace

Tensor bias_gradient(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                     const Tensor& d_output, const Tensor& log_sum_exp, const Tensor& delta,
                     const Parameters& parameters) {
  check_call(q, k, v, parameters);
  return run_kernel(cx, BiasKernel(parameters), {q, k, v, d_output, log_sum_exp, delta},
                    parameters.bias.spec());
}

Tensor sinks_gradient(Context& cx, const Tensor& sinks, const Tensor& log_sum_exp,
                      const Tensor& delta) {
  return run_kernel(cx, SinksKernel(), {sinks, log_sum_exp, delta}, sinks.spec());
}

Tensor row_dots(Context& cx, const Tensor& a, const Tensor& b) {
  WEFT_CHECK(a.spec() == b.spec(), "dots of {} and {}", a.shape().to_string(),
             b.shape().to_string());
  return run_kernel(cx, RowDots(), {a, b},
                    {Shape{a.dim(0), a.dim(1), a.dim(2)}, sum_dtype(a.dtype())});
}

Tensor empty_by_token(Context& cx, const Shape& shape, DType dtype) {
  const int64_t heads = shape[1], tokens = shape[2], features = shape[3];
  const Tensor storage =
      Tensor::empty(cx.allocator, Shape{shape[0], tokens, heads, features}, dtype);
  const std::array<int64_t, 4> strides{tokens * heads * features, features, heads * features, 1};
  return storage.view(shape, strides, 0);
}

}  // namespace weft::attention
