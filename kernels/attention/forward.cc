// A thread takes a tile of queries of one head and walks the keys that it sees.
#include <array>
#include <cmath>

#include "kernels/attention/block.h"
#include "kernels/attention/problem.h"
#include "kernels/cuda/backend.h"

namespace weft::attention {
namespace {

constexpr int64_t kKeys = 128;  // of a tile

template <typename In>
class Forward {
 public:
  using Sum = typename cpu::SumOf<In>::type;
  Forward(const Problem<In>& problem, const Tensor& output, const Tensor& log_sum_exp)
      : p_(problem),
        output_(output),
        log_sum_exp_(log_sum_exp),
        scratch_(problem.cx.allocator),
        queries_(scratch_.bytes(p_.operand_bytes(kLanes, p_.e.features))),
        keys_(p_.side_memory(scratch_, kKeys, p_.e.features)),
        values_(p_.side_memory(scratch_, kKeys, p_.e.value_features)),
        scores_(scratch_.of<Sum>(kKeys * kLanes)),
        sums_(scratch_.of<Sum>(p_.e.value_features * kLanes)),
        extras_(p_, scratch_, kKeys) {}

  // Late tiles first: with a causal mask they are the long ones.
  void operator()(int64_t item) {
    const int64_t tiles = p_.e.tiles(), head = item / tiles % p_.e.heads;
    const int64_t query = (tiles - 1 - item % tiles) * kLanes;
    one_tile({item / tiles / p_.e.heads, head, query, std::min(kLanes, p_.e.queries - query)});
  }

 private:
  void one_tile(Tile tile) {
    const int64_t key_head = p_.key_head(tile.head);
    p_.kernels.pack_lanes(rows_of<const In>(p_.q, tile.row, tile.head, tile.query), tile.queries,
                          p_.e.features, queries_);
    std::fill_n(largest_, kLanes, -std::numeric_limits<Sum>::infinity());
    std::fill_n(total_, kLanes, Sum{0});
    const Span seen = p_.mask.keys_seen(tile.row, tile.query);
    bool fresh = true;
    for (tile.key = seen.begin; tile.key < seen.end; tile.key += kKeys) {
      tile.keys = std::min(kKeys, seen.end - tile.key);
      const TileView view = p_.mask.view(tile);
      if (view == TileView::kNone) continue;
      p_.count(tile.keys);
      const cpu::Operand keys = p_.kernels.by_feature(
          rows_of<const In>(p_.k, tile.row, key_head, tile.key), tile.keys, p_.e.features, keys_);
      p_.kernels.scores(tile.keys, p_.e.features, static_cast<Sum>(p_.parameters.scale), keys,
                        queries_, scores_);
      extras_.finish_scores(tile, view, false, scores_);
      p_.kernels.soften(tile.keys, scores_, extras_.keep(tile), scores_, largest_, total_, shrink_);
      const cpu::Operand values =
          p_.kernels.by_row(rows_of<const In>(p_.v, tile.row, key_head, tile.key), tile.keys,
                            p_.e.value_features, values_);
      p_.kernels.collect(p_.e.value_features, tile.keys, values, scores_, fresh, shrink_, sums_);
      fresh = false;
    }
    if (fresh) std::fill_n(sums_, p_.e.value_features * kLanes, Sum{0});
    finish(tile);
  }

  void finish(const Tile& tile) {
    Sum factor[kLanes] = {};
    Sum* lse =
        log_sum_exp_.data<Sum>() + (tile.row * p_.e.heads + tile.head) * p_.e.queries + tile.query;
    const Sum sink = p_.sinks ? static_cast<Sum>(p_.sinks.template data<In>()[tile.head]) : Sum{0};
    for (int64_t i = 0; i < tile.queries; ++i) {
      Sum grown = 1;
      if (p_.sinks) {
        const Sum now = std::max(largest_[i], sink);
        grown = std::exp(largest_[i] - now);
        total_[i] = total_[i] * grown + std::exp(sink - now);
        largest_[i] = now;
      }
      factor[i] = total_[i] == 0 ? Sum{0} : grown / total_[i];
      lse[i] = largest_[i] + std::log(total_[i]);  // log(0): nothing was visible
    }
    const auto store = [&]<typename Out>(auto kernel) {
      kernel(sums_, tile.queries, p_.e.value_features, factor,
             rows_of<Out>(output_, tile.row, tile.head, tile.query));
    };
    if (output_.dtype() == DTypeOf<In>::value) {
      store.template operator()<In>(p_.kernels.store_lanes);
    } else {
      store.template operator()<Sum>(p_.kernels.store_lanes_wide);
    }
  }

  const Problem<In>& p_;
  const Tensor &output_, &log_sum_exp_;
  Scratch scratch_;
  void *const queries_, *const keys_, *const values_;  // packed
  Sum *const scores_, *const sums_;                    // [K, Q], then weights; [Dv, Q]
  TileExtras<In> extras_;
  Sum largest_[kLanes], total_[kLanes], shrink_[kLanes];
};

// Inputs: q, k, v. Outputs: the attention, log-sum-exp.
class ForwardKernel final : public Kernel {
 public:
  explicit ForwardKernel(const Parameters& parameters) : parameters_(parameters) {}
  std::string_view name() const override { return "scaled_dot_product"; }
  void cpu(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    dispatch_inputs(inputs[0].dtype(), [&]<typename In>() {
      const Problem<In> problem(cx, inputs[0], inputs[1], inputs[2], parameters_);
      const Extents& e = problem.e;
      share_items(cx.pool, e.rows * e.heads * e.tiles(),
                  [&] { return Forward<In>(problem, outputs[0], outputs[1]); });
      problem.report(1, 1);
    });
  }
  void cuda(Context& cx, std::span<const Tensor> inputs, std::span<Tensor> outputs) override {
    cuda::backend(cx).attention(inputs[0], inputs[1], inputs[2], parameters_, cx.repeats(),
                                outputs[0], outputs[1]);
  }

 private:
  const Parameters& parameters_;
};

}  // namespace

void forward_into(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                  const Parameters& parameters, const Tensor& output, const Tensor& log_sum_exp) {
  check_call(q, k, v, parameters);
  ForwardKernel kernel(parameters);
  std::array outputs = {output, log_sum_exp};
  run_kernel(cx, kernel, std::array{q, k, v}, outputs);
}

}  // namespace weft::attention
