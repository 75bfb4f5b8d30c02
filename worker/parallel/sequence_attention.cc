#include "worker/parallel/sequence_attention.h"

#include <array>
#include <optional>
#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/ops/common.h"
#include "kernels/ops/ops.h"
#include "worker/parallel/head_exchange.h"
#include "worker/parallel/head_parts.h"
#include "worker/parallel/ring.h"
#include "worker/parallel/tree_sum.h"

namespace weft::parallel {
namespace {

using attention::BlockGrads;
using attention::Parameters;
using attention::Partial;

// What of the parameters is told head by head, for some of the heads.
Parameters for_heads(Context& cx, const Parameters& parameters, Part heads) {
  Parameters some = parameters;
  some.dropout.first_head += heads.start;
  if (!parameters.alibi_slopes.empty()) {
    const auto begin = parameters.alibi_slopes.begin() + heads.start;
    some.alibi_slopes.assign(begin, begin + heads.length);
  }
  if (parameters.distance_bias) {
    some.distance_bias = ops::slice(cx, parameters.distance_bias, 0, heads.start, heads.length);
  }
  return some;
}

// The two exchanges of a Ulysses group: that of queries and results, and that of keys and values.
struct Exchanges {
  Exchanges(Communicator& comm, const SequenceLayout& query_layout,
            const SequenceLayout& key_layout, int first_rank, int64_t all_heads,
            int64_t all_key_heads)
      : queries{comm, {}, {}, all_heads}, keys{comm, {}, {}, all_key_heads} {
    int64_t held = 0;
    for (int rank = 0; rank < comm.size(); ++rank) {
      const HeadParts parts = head_parts(all_heads, all_key_heads, comm.size(), rank);
      queries.tokens.push_back(query_layout.length(first_rank + rank));
      keys.tokens.push_back(key_layout.length(first_rank + rank));
      queries.heads.push_back(parts.queries);
      keys.heads.push_back(parts.keys);
      held += parts.keys.length;
    }
    shared = held > all_key_heads;
  }
  HeadExchange queries, keys;
  bool shared = false;  // several ranks hold one head of keys
};

// Inputs: q, k, v, then the table by distance where there is one. What the backward pass needs
// stays here, by heads.
class SequenceAttention final : public ops::ForwardOp {
 public:
  SequenceAttention(const Mesh& mesh, const SequenceLayout& queries, const SequenceLayout& keys,
                    const Parameters& parameters, const KeyTerms& terms)
      : mesh_(mesh), queries_(queries), keys_(keys), parameters_(parameters), terms_(terms) {
    parameters_.distance_bias = Tensor();  // it comes as an input
  }
  std::string_view name() const override { return "sequence_attention"; }
  bool native(DType half) const override { return half == DType::kBF16; }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    q_ = inputs[0].detach();
    k_ = inputs[1].detach();
    v_ = inputs[2].detach();
    if (inputs.size() > 3) parameters_.distance_bias = inputs[3].detach();
    if (q_.dim(1) == 0) {
      const Shape nothing{q_.dim(0), 0, q_.dim(2), v_.dim(3)};
      return {Tensor::empty(cx.allocator, nothing, q_.dtype())};
    }
    make_parts(cx, q_.dim(0), q_.dim(1), k_.dim(1));
    if (exchanges_) {
      q_ = exchanges_->queries.to_heads(cx, q_);
      k_ = exchanges_->keys.to_heads(cx, k_);
      v_ = exchanges_->keys.to_heads(cx, v_);
    }
    const Partial whole = ring_->forward(cx, q_, k_, v_);
    output_ = cpu::converted(cx.pool, whole.output, q_.dtype());
    log_sum_exp_ = whole.log_sum_exp;
    return {exchanges_ ? exchanges_->queries.to_tokens(cx, output_) : output_};
  }

  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor> outputs) override {
    if (!exchanges_) output_ = outputs[0].detach();  // which the caller holds too
    return {};
  }

  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    if (!ring_) return all({q_, k_, v_}, parameters_.distance_bias);  // no heads: no elements
    const Tensor d_output = exchanges_ ? exchanges_->queries.to_heads(cx, output_grads[0])
                                       : as_contiguous(cx.pool, output_grads[0]);
    const Tensor delta = attention::row_dots(cx, output_, d_output);
    output_ = Tensor();
    BlockGrads grads = gradients(cx, d_output, delta);
    // One head's gradient is whole on its rank, and rounded as it would be there; terms are not.
    if (exchanges_) {
      const DType dtype = q_.dtype(), key_dtype = exchanges_->shared ? grads.k.dtype() : dtype;
      const auto home = [&](const HeadExchange& exchange, Tensor& gradient, DType sent) {
        gradient = cpu::converted(cx.pool, gradient, sent);
        gradient = exchange.to_tokens(cx, gradient);
      };
      home(exchanges_->queries, grads.q, dtype);
      home(exchanges_->keys, grads.k, key_dtype);
      home(exchanges_->keys, grads.v, key_dtype);
    }
    if (terms_.holders != nullptr) {
      for (Tensor* gradient : {&grads.k, &grads.v}) {
        *gradient = tree_sum(cx, *terms_.holders, as_contiguous(cx.pool, *gradient));
      }
    }
    if (!exchanges_) return all(grads, grads.distance_bias);
    return all(grads, of_all_heads(cx, grads.distance_bias));
  }

 private:
  // Of the heads here, those of keys summed over what reads them here.
  BlockGrads gradients(Context& cx, const Tensor& d_output, const Tensor& delta) const {
    int64_t terms = 1;
    if (terms_.heads > 0) terms = q_.dim(1) / k_.dim(1) / terms_.heads;
    if (terms == 1) return ring_->backward(cx, q_, k_, v_, d_output, log_sum_exp_, delta);
    // Each term's heads read a head of their own.
    BlockGrads grads = ring_->backward(cx, q_, repeated(cx, k_, terms), repeated(cx, v_, terms),
                                       d_output, log_sum_exp_, delta);
    grads.k = summed(cx, grads.k, terms);
    grads.v = summed(cx, grads.v, terms);
    return grads;
  }
  // x [B, Nk, T, D], each head `times` times in a row.
  static Tensor repeated(Context& cx, const Tensor& x, int64_t times) {
    const Shape shape{x.dim(0), x.dim(1), times, x.dim(2), x.dim(3)};
    const auto from = x.strides();
    const std::array<int64_t, 5> strides{from[0], from[1], 0, from[2], from[3]};
    return ops::reshape(cx, clone(cx.pool, x.view(shape, strides, 0)),
                        {x.dim(0), x.dim(1) * times, x.dim(2), x.dim(3)});
  }
  // The sum of every `count` heads in a row, as a tree.
  static Tensor summed(Context& cx, const Tensor& x, int64_t count) {
    Shape shape = x.shape();
    shape[1] /= count;
    const auto from = x.strides();
    const std::array<int64_t, 4> strides{from[0], count * from[1], from[2], from[3]};
    const auto term = [&](int64_t index) { return x.view(shape, strides, index * from[1]); };
    merge_tree(count,
               [&](int64_t into, int64_t from) { add_into(cx.pool, term(from), term(into)); });
    return term(0);
  }
  std::vector<Tensor> all(const BlockGrads& grads, const Tensor& table) const {
    std::vector<Tensor> each{grads.q, grads.k, grads.v};
    if (parameters_.distance_bias) each.push_back(table);
    return each;
  }
  // The gradient of the table: other ranks have the terms of the other heads.
  Tensor of_all_heads(Context& cx, const Tensor& own) const {
    if (!own) return own;
    const Tensor whole =
        Tensor::zeros(cx.allocator, parameters_.distance_bias.shape(), own.dtype());
    copy_into(cx.pool, own, ops::slice(cx, whole, 0, own_heads_.start, own_heads_.length));
    return whole;
  }
  void make_parts(Context& cx, int64_t rows, int64_t heads, int64_t key_heads) {
    Communicator& ulysses = mesh_.axis(Axis::kUlysses);
    Communicator& ring = mesh_.axis(Axis::kRing);
    Parameters own = parameters_;
    if (ulysses.size() > 1) {
      exchanges_.emplace(ulysses, queries_, keys_, ring.rank() * ulysses.size(), heads, key_heads);
      own_heads_ = head_parts(heads, key_heads, ulysses.size(), ulysses.rank()).queries;
      own = for_heads(cx, own, own_heads_);
    }
    ring_.emplace(ring, queries_.grouped(ulysses.size()), keys_.grouped(ulysses.size()), own, rows);
  }

  const Mesh& mesh_;
  const SequenceLayout queries_, keys_;
  Parameters parameters_;
  const KeyTerms terms_;
  Part own_heads_;  // where heads are exchanged
  std::optional<Exchanges> exchanges_;
  std::optional<Ring> ring_;
  Tensor q_, k_, v_, output_, log_sum_exp_;
};

}  // namespace

Tensor sequence_attention(Context& cx, const Mesh& mesh, const SequenceLayout& layout,
                          const Tensor& q, const Tensor& k, const Tensor& v,
                          const Parameters& parameters, const KeyTerms& terms) {
  return sequence_attention(cx, mesh, layout, layout, q, k, v, parameters, terms);
}

Tensor sequence_attention(Context& cx, const Mesh& mesh, const SequenceLayout& queries,
                          const SequenceLayout& keys, const Tensor& q, const Tensor& k,
                          const Tensor& v, const Parameters& parameters, const KeyTerms& terms) {
  WEFT_CHECK(!parameters.distance_bias || cx.block_count == 0,
             "a bias by distance is not cut into blocks");
  if (mesh.size(Axis::kSequence) == 1 && terms.heads == 0) {
    Parameters whole = parameters;
    whole.dropout.queries = queries.tokens();
    whole.dropout.keys = keys.tokens();
    return attention::scaled_dot_product(cx, q, k, v, whole);
  }
  WEFT_CHECK(!parameters.bias && !parameters.sinks && !parameters.visibility.mask,
             "bias, sinks and mask do not go round");
  // What travels is contiguous; made so here, inside autograd, so that no second copy is kept.
  const bool ring = mesh.size(Axis::kRing) > 1 && mesh.size(Axis::kUlysses) == 1;
  std::vector<Tensor> inputs{q, ring ? ops::contiguous(cx, k) : k,
                             ring ? ops::contiguous(cx, v) : v};
  if (parameters.distance_bias) inputs.push_back(parameters.distance_bias);
  return apply(cx, std::make_unique<SequenceAttention>(mesh, queries, keys, parameters, terms),
               std::move(inputs))[0];
}

}  // namespace weft::parallel
