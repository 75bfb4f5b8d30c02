// Losses in blocks of tokens and of the vocabulary.
#include <algorithm>
#include <array>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/rows.h"
#include "kernels/cuda/backend.h"
#include "kernels/ops/common.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/tensor/transfer.h"
#include "worker/parallel/blocked.h"
#include "worker/parallel/blocked_rows.h"
#include "worker/parallel/cell_products.h"
#include "worker/parallel/tree_sum.h"

namespace weft::parallel {
namespace {

using cpu::Extent;
using cpu::parts_of;
using Extents = std::vector<Extent>;

constexpr int64_t kChunk = int64_t{1} << 22;  // logits of one block that stand in memory, about
constexpr int64_t kChunkRowsMin = 16;

// Sum of sum_of(block) in the tree over the blocks of the whole batch.
template <typename F>
double sum_in_blocks(Context& cx, const TensorAxis& axis, const Extents& blocks, F&& sum_of) {
  std::vector<double> sums;
  for (const Extent& block : blocks) sums.push_back(sum_of(block));
  merge_tree(std::ssize(sums), [&](int64_t into, int64_t from) {
    sums[static_cast<size_t>(into)] += sums[static_cast<size_t>(from)];
  });
  return tree_sum(cx, *axis.replicas, sums[0]);
}

// The losses of all rows, from their terms.
double loss_in_blocks(Context& cx, const TensorAxis& axis, const Extents& blocks,
                      const Terms& terms, const Tensor& labels, const ops::TokenLoss& loss) {
  const std::vector<double> losses = row_losses(terms, labels, loss);
  return sum_in_blocks(cx, axis, blocks, [&](const Extent& block) {
    const auto first = losses.begin() + block.start;
    return std::accumulate(first, first + block.length, 0.0);
  });
}

// Of one loss; an empty handle: nobody asks for it.
struct Gradients {
  Tensor x, table, bias;
};

// The computation of one loss.
class VocabularyLoss {
 public:
  // bias: in F32, of the table's rows, or an empty handle.
  VocabularyLoss(Context& cx, const TensorAxis& axis, const Tensor& x, const Tensor& table,
                 const Tensor& bias, const Tensor& labels, int64_t vocabulary,
                 const ops::TokenLoss& loss)
      : cx_(cx),
        axis_(axis),
        x_(x),
        table_(table),
        bias_(bias),
        labels_(labels),
        loss_(loss),
        limits_(cell_limits(cx)),
        rows_(x.dim(0)),
        hidden_(x.dim(1)),
        first_id_(axis.part(vocabulary).start),
        tokens_(cpu::equal_blocks(rows_, axis.token_blocks())) {
    const int count = axis.blocks, first = axis.comm.rank() * axis.feature_blocks();
    for (int b = first; b < first + axis.feature_blocks(); ++b) {
      const Part block = part_of(vocabulary, count, b);
      ids_.push_back({block.start - first_id_, block.length});
    }
    WEFT_CHECK(ids_.front().start == 0 && ids_.back().start + ids_.back().length == table.dim(0),
               "a shard of {} of {} in {} blocks", table.dim(0), vocabulary, count);
    const int64_t widest = part_of(vocabulary, count, 0).length;
    chunk_rows_ = std::max(kChunkRowsMin, kChunk / std::max<int64_t>(1, widest));
  }

  // Sum of the losses over the batch; dx [rows, H], dtable and dbias, F32, where they are wanted.
  double run(const Gradients& wanted, int64_t kept_max, Tensor* best) {
    const bool gradients = wanted.x || wanted.table || wanted.bias;
    if (gradients && rows_ * table_.dim(0) <= kept_max) {
      kept_ = Tensor::empty(cx_.allocator, {kept_rows() * table_.dim(0)});
    }
    terms_ = find_terms(best != nullptr);
    if (best != nullptr) *best = terms_.best;
    if (gradients) {
      lse_ = log_sums(cx_, terms_);
      ids_node(0, ids_.size(), wanted);
    }
    return loss_in_blocks(cx_, axis_, tokens_, terms_, labels_, loss_);
  }

 private:
  Extents chunks() const { return parts_of(tokens_, chunk_rows_); }
  // How many rows each id has room for where logits are kept: a block of ids starts at whole 256
  // bytes wherever it lies, since on a GPU how a row is added up follows from its alignment.
  int64_t kept_rows() const { return (rows_ + 63) / 64 * 64; }
  // Where the logits of these rows and ids are kept, or have room.
  Tensor place_of(const Extent& rows, const Extent& ids, const Tensor& room) const {
    const int64_t at = kept_ ? ids.start * kept_rows() + rows.start * ids.length : 0;
    return (kept_ ? kept_ : room)
        .view({rows.length, ids.length}, std::array<int64_t, 2>{ids.length, 1}, at);
  }
  Tensor room_for(const Extent& ids) const {
    return kept_ ? Tensor() : Tensor::empty(cx_.allocator, {chunk_rows_ * ids.length});
  }
  static Tensor rows_from(const Tensor& x, const Extent& rows) {
    const int64_t width = x.dim(1);
    return x.view({rows.length, width}, std::array<int64_t, 2>{width, 1}, rows.start * width);
  }
  static Tensor elements_from(const Tensor& x, const Extent& some) {
    return x.view({some.length}, std::array<int64_t, 1>{1}, some.start);
  }
  static Tensor like(Context& cx, const Tensor& x) {
    return x ? Tensor::empty(cx.allocator, x.shape()) : Tensor();
  }

  // The logits of these rows and ids, [rows, ids].
  void logits(const Extent& rows, const Extent& ids, const Tensor& to) const {
    const cpu::CellCut cut{parts_of(Extents{{0, rows.length}}, limits_.rows),
                           parts_of(Extents{{0, ids.length}}, limits_.features),
                           {{{0, hidden_}}}};
    cell_products(cx_, cut, {rows_from(x_, rows)}, {rows_from(table_, ids), true}, to);
    if (!bias_) return;
    const Tensor added = elements_from(bias_, ids);
    if (!cx_.device().is_cpu()) {
      return cuda::backend(cx_).binary(ops::Arithmetic::kAdd, to, added, to);
    }
    cx_.pool.parallel_for(rows.length, 4, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        cpu::rows<float>().add(added.data<float>(), to.data<float>() + row * ids.length,
                               ids.length);
      }
    });
  }

  // The rows and ids of a cell of logits, for what is computed row by row.
  LogitRows rows_of(const Extent& rows, const Extent& ids) const {
    return {labels_, loss_, rows.start, first_id_ + ids.start};
  }

  // Of all rows, over the whole vocabulary.
  Terms find_terms(bool best) const {
    const Terms own = terms_node(0, ids_.size(), best);
    if (axis_.comm.size() == 1) return own;
    const Tensor floats = gathered(cx_, axis_.comm, own.floats);  // [3 t, rows]
    const Tensor ids = best ? gathered(cx_, axis_.comm, own.best) : Tensor();
    std::vector<Terms> nodes;
    for (int r = 0; r < axis_.comm.size(); ++r) {
      const std::array<int64_t, 2> strides{rows_, 1};
      nodes.push_back({floats.view({3, rows_}, strides, 3 * rows_ * r),
                       best ? ids.view({rows_}, std::array<int64_t, 1>{1}, rows_ * r) : Tensor()});
    }
    merge_tree(std::ssize(nodes), [&](int64_t into, int64_t from) {
      merge(cx_, nodes[static_cast<size_t>(into)], nodes[static_cast<size_t>(from)]);
    });
    return nodes[0];
  }

  Terms terms_node(size_t first, size_t last, bool best) const {
    if (last - first == 1) return terms_of(ids_[first], best);
    const auto middle = static_cast<size_t>(
        cpu::node_middle(static_cast<int64_t>(first), static_cast<int64_t>(last)));
    const Terms terms = terms_node(first, middle, best);
    merge(cx_, terms, terms_node(middle, last, best));
    return terms;
  }

  Terms terms_of(const Extent& ids, bool best) const {
    const Terms terms = empty_terms(cx_, rows_, best);
    const Tensor room = room_for(ids);
    for (const Extent& chunk : chunks()) {
      const Tensor values = place_of(chunk, ids, room);
      logits(chunk, ids, values);
      find_row_terms(cx_, values, rows_of(chunk, ids), terms);
    }
    return terms;
  }

  // Of x: the sum over these blocks of ids; of the table and the bias: their rows.
  void ids_node(size_t first, size_t last, const Gradients& to) {
    if (last - first == 1) {
      const Extent& ids = ids_[first];
      const Gradients own{to.x, to.table ? rows_from(to.table, ids) : Tensor(),
                          to.bias ? elements_from(to.bias, ids) : Tensor()};
      tokens_node(0, tokens_.size(), ids, room_for(ids), own);
      return;
    }
    const auto middle = static_cast<size_t>(
        cpu::node_middle(static_cast<int64_t>(first), static_cast<int64_t>(last)));
    ids_node(first, middle, to);
    const Gradients other{like(cx_, to.x), to.table, to.bias};
    ids_node(middle, last, other);
    if (to.x) add_into(cx_.pool, other.x, to.x);
  }

  // Of the table [ids, H] and the bias [ids]: the sum over these blocks of tokens; of x their rows.
  void tokens_node(size_t first, size_t last, const Extent& ids, const Tensor& room,
                   const Gradients& to) {
    if (last - first == 1) {
      bool fresh = true;
      for (const Extent& chunk : parts_of({&tokens_[first], 1}, chunk_rows_)) {
        one_chunk(chunk, ids, room, to, fresh);
        fresh = false;
      }
      return;
    }
    const auto middle = static_cast<size_t>(
        cpu::node_middle(static_cast<int64_t>(first), static_cast<int64_t>(last)));
    tokens_node(first, middle, ids, room, to);
    const Gradients other{to.x, like(cx_, to.table), like(cx_, to.bias)};
    tokens_node(middle, last, ids, room, other);
    if (to.table) add_into(cx_.pool, other.table, to.table);
    if (to.bias) add_into(cx_.pool, other.bias, to.bias);
  }

  void one_chunk(const Extent& chunk, const Extent& ids, const Tensor& room, const Gradients& to,
                 bool fresh) {
    const Tensor values = place_of(chunk, ids, room);
    if (!kept_) logits(chunk, ids, values);
    to_gradients(cx_, values, rows_of(chunk, ids), terms_, lse_);
    if (to.bias) {
      Context in_order = cx_;  // of these rows, as their number alone says
      in_order.block_count = 1;
      const Tensor sum = ops::sum(in_order, values, 0);
      fresh ? copy_into(cx_.pool, sum, to.bias) : add_into(cx_.pool, sum, to.bias);
    }
    const Tensor gradient = cpu::converted(cx_.pool, values, x_.dtype());
    if (to.x) {
      const cpu::CellCut cut{parts_of(Extents{{0, chunk.length}}, limits_.rows),
                             parts_of(Extents{{0, hidden_}}, limits_.whole),
                             {{{0, ids.length}}}};
      cell_products(cx_, cut, {gradient}, {rows_from(table_, ids)}, rows_from(to.x, chunk));
    }
    if (!to.table) return;
    const cpu::CellCut cut{parts_of(Extents{{0, ids.length}}, limits_.rows),
                           parts_of(Extents{{0, hidden_}}, limits_.whole),
                           {{{0, chunk.length}}}};
    cell_products(cx_, cut, {gradient, true}, {rows_from(x_, chunk)}, to.table, fresh);
  }

  Context& cx_;
  const TensorAxis& axis_;
  const Tensor &x_, &table_, &bias_, &labels_;
  const ops::TokenLoss& loss_;
  const CellLimits limits_;
  const int64_t rows_, hidden_, first_id_;
  const Extents tokens_;
  Extents ids_;  // blocks of this rank's shard, from its first id on
  int64_t chunk_rows_ = 0;
  Tensor kept_;  // all logits, block of ids by block of ids, or an empty handle
  Terms terms_;
  Tensor lse_;
};

// Both losses: gradients are made with the loss and handed out by the backward pass.
class Loss : public ops::ForwardOp {
 public:
  Loss(const TensorAxis& axis, const ops::TokenLoss& loss) : axis_(axis), loss_(loss) {
    WEFT_CHECK(loss.smoothing == 0 && loss.seed != 0, "smoothing {}, seed {}", loss.smoothing,
               loss.seed);
  }
  bool rounds(size_t) const override { return false; }
  std::vector<Tensor> saves(std::span<const Tensor>, std::span<const Tensor>) override {
    return {};
  }
  std::vector<Tensor> vjp(Context& cx, std::span<const Tensor>,
                          std::span<const Tensor> output_grads) override {
    const double factor = ops::seed_factor(loss_, output_grads[0]);
    if (static_cast<float>(factor) != 1.0F) {
      for (Tensor& gradient : gradients_) {
        if (gradient) gradient = ops::scale(cx, gradient, factor);
      }
    }
    return std::move(gradients_);
  }

 protected:
  const TensorAxis axis_;
  const ops::TokenLoss loss_;
  std::vector<Tensor> gradients_;  // of the inputs, for an output gradient of loss_.seed
};

// Inputs: x [..., n, H], table [V/t, H], labels and, where there is one, the bias [V/t].
class LinearCrossEntropy final : public Loss {
 public:
  // wanted: of the inputs' gradients.
  LinearCrossEntropy(const TensorAxis& axis, int64_t vocabulary, const ops::TokenLoss& loss,
                     std::vector<bool> wanted, Tensor* best, int64_t kept_max)
      : Loss(axis, loss),
        vocabulary_(vocabulary),
        wanted_(std::move(wanted)),
        best_(best),
        kept_max_(kept_max) {}
  std::string_view name() const override { return "blocked_linear_cross_entropy"; }
  bool native(DType half) const override { return half == DType::kBF16; }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    const Tensor x = gathered(cx, axis_.comm, ops::as_rows(cx, inputs[0]));
    const Tensor table = as_contiguous(cx.pool, inputs[1]);
    const Tensor labels = as_contiguous(cx.pool, inputs[2]);
    WEFT_CHECK(labels.elements() == x.dim(0), "{} labels of {}", labels.elements(),
               x.shape().to_string());
    ops::TokenLoss whole = loss_;
    whole.shard.vocabulary = vocabulary_;
    ops::LabelRule(whole, table.dim(0)).check(labels);
    const bool biased = inputs.size() > 3;
    const Tensor bias =
        biased ? cpu::converted(cx.pool, as_contiguous(cx.pool, inputs[3]), DType::kF32) : Tensor();
    const auto room = [&](size_t input, const Tensor& like) {
      return wanted_[input] ? Tensor::empty(cx.allocator, like.shape()) : Tensor();
    };
    const Gradients to{room(0, x), room(1, table), biased ? room(3, bias) : Tensor()};
    VocabularyLoss computed(cx, axis_, x, table, bias, labels, vocabulary_, loss_);
    const double total = computed.run(to, kept_max_, best_);
    gradients_ = {
        to.x ? ops::reshape(cx, tree_scatter(cx, axis_.comm, to.x), inputs[0].shape()) : Tensor(),
        to.table, Tensor(), to.bias};
    gradients_.resize(inputs.size());
    return {Tensor::full(cx.allocator, Shape{}, total)};
  }

 private:
  const int64_t vocabulary_;
  const std::vector<bool> wanted_;
  Tensor* const best_;
  const int64_t kept_max_;
};

// Inputs: logits [rows, classes], labels [rows].
class CrossEntropy final : public Loss {
 public:
  CrossEntropy(const TensorAxis& axis, const ops::TokenLoss& loss, bool wanted)
      : Loss(axis, loss), wanted_(wanted) {}
  std::string_view name() const override { return "blocked_cross_entropy"; }

  std::vector<Tensor> forward(Context& cx, std::span<const Tensor> inputs) override {
    const Tensor labels = as_contiguous(cx.pool, inputs[1]);
    const Tensor logits = clone(cx.pool, inputs[0]);
    const int64_t rows = logits.dim(0), classes = logits.dim(1);
    const ops::LabelRule rule(loss_, classes);
    rule.check(labels);
    const Extents blocks = cpu::equal_blocks(rows, std::min<int64_t>(axis_.token_blocks(), rows));
    double total = 0;
    if (cx.device().is_cpu()) {
      total = sum_in_blocks(cx, axis_, blocks, [&](const Extent& block) {
        return rule.loss_and_gradient(cx, logits.data<float>() + block.start * classes,
                                      labels.data<int64_t>() + block.start, block.length);
      });
    } else {
      const Terms terms = empty_terms(cx, rows, /*best=*/false);
      const LogitRows all{labels, loss_, 0, 0};
      find_row_terms(cx, logits, all, terms);
      to_gradients(cx, logits, all, terms, log_sums(cx, terms));
      total = loss_in_blocks(cx, axis_, blocks, terms, labels, loss_);
    }
    gradients_ = {wanted_ ? logits : Tensor()};
    return {Tensor::full(cx.allocator, Shape{}, total)};
  }

 private:
  const bool wanted_;
};

}  // namespace

Tensor blocked_linear_cross_entropy(Context& cx, const TensorAxis& axis, const Tensor& x,
                                    const Tensor& table, const Tensor& labels, int64_t vocabulary,
                                    const ops::TokenLoss& loss, Tensor* best, int64_t kept_max,
                                    const Tensor& bias) {
  std::vector<Tensor> inputs{x, table, labels};
  if (bias) inputs.push_back(bias);
  std::vector<bool> wanted;
  for (const Tensor& input : inputs) wanted.push_back(cx.tape != nullptr && input.requires_grad());
  return ops::run<LinearCrossEntropy>(cx, std::move(inputs), axis, vocabulary, loss,
                                      std::move(wanted), best, kept_max);
}

Tensor blocked_cross_entropy(Context& cx, const TensorAxis& axis, const Tensor& logits,
                             const Tensor& labels, const ops::TokenLoss& loss) {
  return ops::run<CrossEntropy>(cx, {logits, labels}, axis, loss,
                                cx.tape != nullptr && logits.requires_grad());
}

}  // namespace weft::parallel
