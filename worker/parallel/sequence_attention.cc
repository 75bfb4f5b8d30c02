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
#include "worker/parallel/shared_heads.h"
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

int64_t heads_of_each(const KeyTerms& terms) {
  return terms.blocks > 0 ? heads_of_term(terms.heads, terms.key_heads, terms.blocks) : 0;
}

// The two exchanges of a Ulysses group: that of queries and results, and that of keys and values.
// The group has the heads `all`; parts: of each rank, where all begin at 0.
struct Exchanges {
  Exchanges(Communicator& comm, const SequenceLayout& query_layout,
            const SequenceLayout& key_layout, int first_rank, std::span<const HeadParts> parts,
            const HeadParts& all)
      : queries{comm, {}, {}, all.queries.length}, keys{comm, {}, {}, all.keys.length} {
    int64_t held = 0;
    for (int rank = 0; rank < comm.size(); ++rank) {
      queries.tokens.push_back(query_layout.length(first_rank + rank));
      keys.tokens.push_back(key_layout.length(first_rank + rank));
      const HeadParts& own = parts[static_cast<size_t>(rank)];
      queries.heads.push_back(own.queries);
      keys.heads.push_back(own.keys);
      held += own.keys.length;
    }
    shared = held > all.keys.length;
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
      : mesh_(mesh),
        queries_(queries),
        keys_(keys),
        parameters_(parameters),
        terms_(terms),
        each_(heads_of_each(terms)) {
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
    // Where the heads here are parts of several groups, each term's have keys of their own.
    const bool even = own_.keys.length * readers_ == own_.queries.length || own_.keys.length < 2;
    const Partial whole = even ? ring_->forward(cx, q_, k_, v_)
                               : ring_->forward(cx, q_, by_terms(cx, k_), by_terms(cx, v_));
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
      const bool terms = exchanges_->shared || shared();
      const DType dtype = q_.dtype(), key_dtype = terms ? grads.k.dtype() : dtype;
      const auto home = [&](const HeadExchange& exchange, Tensor& gradient, DType sent) {
        gradient = cpu::converted(cx.pool, gradient, sent);
        gradient = exchange.to_tokens(cx, gradient);
      };
      home(exchanges_->queries, grads.q, dtype);
      home(exchanges_->keys, grads.k, key_dtype);
      home(exchanges_->keys, grads.v, key_dtype);
    }
    if (each_ > 0) {
      for (Tensor* gradient : {&grads.k, &grads.v}) {
        *gradient = sum_shared_heads(cx, mesh_.axis(Axis::kTensor), *gradient, key_heads_);
      }
    }
    if (!exchanges_) return all(grads, grads.distance_bias);
    return all(grads, of_all_heads(cx, grads.distance_bias));
  }

 private:
  // Of the heads here, those of keys summed over what reads them here.
  BlockGrads gradients(Context& cx, const Tensor& d_output, const Tensor& delta) const {
    if (each_ == 0 || own_.queries.length == each_ * own_.keys.length) {
      return ring_->backward(cx, q_, k_, v_, d_output, log_sum_exp_, delta);
    }
    // Each term's heads read a head of their own.
    BlockGrads grads =
        ring_->backward(cx, q_, by_terms(cx, k_), by_terms(cx, v_), d_output, log_sum_exp_, delta);
    grads.k = summed(cx, grads.k);
    grads.v = summed(cx, grads.v);
    return grads;
  }
  // The terms of a head of keys, among those that this rank has, which read it.
  Part terms_of(int64_t key, Part heads) const {
    const int64_t first = std::max(key * readers_, heads.start);
    const int64_t end = std::min((key + 1) * readers_, heads.start + heads.length);
    return {(first - own_.queries.start) / each_, std::max<int64_t>(0, end - first) / each_};
  }
  // x [B, Nk, T, D] of the heads of keys here -> [B, terms, T, D], for each term the head that its
  // heads read.
  Tensor by_terms(Context& cx, const Tensor& x) const {
    const Tensor all = Tensor::empty(
        cx.allocator, {x.dim(0), own_.queries.length / each_, x.dim(2), x.dim(3)}, x.dtype());
    for (int64_t i = 0; i < own_.keys.length; ++i) {
      const Part terms = terms_of(own_.keys.start + i, own_.queries);
      Shape shape = x.shape();
      shape[1] = terms.length;
      const auto from = x.strides();
      const std::array<int64_t, 4> strides{from[0], 0, from[2], from[3]};
      copy_into(cx.pool, x.view(shape, strides, i * from[1]),
                ops::slice(cx, all, 1, terms.start, terms.length));
    }
    return all;
  }
  // x [B, terms, T, D] -> [B, Nk, T, D], the sum of each head's.
  Tensor summed(Context& cx, const Tensor& x) const {
    const Tensor sums =
        Tensor::empty(cx.allocator, {x.dim(0), own_.keys.length, x.dim(2), x.dim(3)}, x.dtype());
    const auto term = [&](int64_t index) { return ops::slice(cx, x, 1, index, 1); };
    const int ulysses = mesh_.size(Axis::kUlysses);
    const int blocks = terms_.blocks / (mesh_.size(Axis::kTensor) * ulysses);
    const int node = mesh_.index(Axis::kTensor) * ulysses + mesh_.index(Axis::kUlysses);
    for (int64_t i = 0; i < own_.keys.length; ++i) {
      std::vector<char> present;
      std::vector<int64_t> first;  // term of each block
      for (int block = node * blocks; std::ssize(first) < blocks; ++block) {
        const Part terms =
            terms_of(own_.keys.start + i, part_of(terms_.heads, terms_.blocks, block));
        for (int64_t t = 1; t < terms.length; ++t) {
          add_into(cx.pool, term(terms.start + t), term(terms.start));
        }
        present.push_back(terms.length > 0);
        first.push_back(terms.start);
      }
      const int64_t sum = merge_tree(present, [&](int64_t into, int64_t from) {
        add_into(cx.pool, term(first[static_cast<size_t>(from)]),
                 term(first[static_cast<size_t>(into)]));
      });
      copy_into(cx.pool, term(first[static_cast<size_t>(sum)]), ops::slice(cx, sums, 1, i, 1));
    }
    return sums;
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
    copy_into(cx.pool, own, ops::slice(cx, whole, 0, first_head_, own_.queries.length));
    return whole;
  }
  void make_parts(Context& cx, int64_t rows, int64_t heads, int64_t key_heads) {
    Communicator& ulysses = mesh_.axis(Axis::kUlysses);
    Communicator& ring = mesh_.axis(Axis::kRing);
    Parameters own = parameters_;
    HeadParts whole{{0, heads}, {0, key_heads}};
    std::vector<HeadParts> parts;  // of the ranks that exchange heads
    readers_ = heads / key_heads;
    if (terms_.blocks > 0) {
      const int tensor = mesh_.size(Axis::kTensor), index = mesh_.index(Axis::kTensor);
      readers_ = terms_.heads / terms_.key_heads;
      for (const HeadParts& each : all_blocked_head_parts(terms_.heads, terms_.key_heads, tensor)) {
        key_heads_.push_back(each.keys);
      }
      whole = blocked_head_parts(terms_.heads, terms_.key_heads, tensor, index);
      parts = exchanged_head_parts(terms_.heads, terms_.key_heads, tensor, index, ulysses.size());
    } else {
      parts = all_head_parts(heads, key_heads, ulysses.size());
    }
    WEFT_CHECK(whole.queries.length == heads && whole.keys.length == key_heads,
               "{} heads and {} of keys, expected {} and {}", heads, key_heads,
               whole.queries.length, whole.keys.length);
    own_ = parts[static_cast<size_t>(ulysses.rank())];
    first_head_ = own_.queries.start;
    if (ulysses.size() > 1) {
      exchanges_.emplace(ulysses, queries_, keys_, ring.rank() * ulysses.size(), parts, whole);
      own = for_heads(cx, own, own_.queries);
    }
    own_.queries.start += whole.queries.start;
    own_.keys.start += whole.keys.start;
    ring_.emplace(ring, queries_.grouped(ulysses.size()), keys_.grouped(ulysses.size()), own, rows);
  }

  // Whether other ranks of the tensor axis have a head of keys of this one, too.
  bool shared() const { return each_ > 0 && shares_heads(key_heads_, mesh_.index(Axis::kTensor)); }

  const Mesh& mesh_;
  const SequenceLayout queries_, keys_;
  Parameters parameters_;
  const KeyTerms terms_;
  const int64_t each_;  // heads of a term; 0: there is one term, of all that read the head
  // Of which this rank computes, where the others of its sequence axis exchange them: of the
  // model's in topology-invariant training, else of those of this rank of the tensor axis.
  HeadParts own_;
  int64_t first_head_ = 0;       // of these, among those of this rank of the tensor axis
  std::vector<Part> key_heads_;  // of each rank of the tensor axis, in topology-invariant training
  int64_t readers_ = 1;          // of a head of keys
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
  const bool whole_rows = mesh.size(Axis::kSequence) == 1 && heads_of_each(terms) == 0;
  WEFT_CHECK(!parameters.distance_bias || cx.block_count == 0 || whole_rows,
             "a bias by distance is cut into blocks of whole rows");
  if (whole_rows) {
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
