// Losses in blocks of tokens and of the vocabulary. Of each block of the vocabulary a row has its
// largest logit and the sum of exponentials relative to that; two blocks merge into the larger and
// the sums, each scaled to it (Milakov and Gimelshein 2018).
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/gemm_cells.h"
#include "kernels/cpu/rows.h"
#include "kernels/ops/common.h"
#include "kernels/ops/cross_entropy.h"
#include "worker/parallel/blocked.h"
#include "worker/parallel/tree_sum.h"

namespace weft::parallel {
namespace {

using cpu::Extent;
using cpu::parts_of;
using Extents = std::vector<Extent>;

constexpr int64_t kRows = 256, kFeatures = 512, kWhole = 1024;  // of cells, as in blocked_linear.cc
constexpr int64_t kChunk = int64_t{1} << 22;  // logits of one block that stand in memory, about
constexpr int64_t kChunkRowsMin = 16;

// What a node of the vocabulary's tree knows of each row, and, as ids do not fit into floats, where
// the largest logit is. [rows] each.
struct Terms {
  Tensor floats;  // [3, rows]: the largest logit, the sum, the label's logit (0: it is not here)
  Tensor best;    // int64; an empty handle where nobody asks
  float* row(int64_t which) const { return floats.data<float>() + which * floats.dim(1); }
};

Terms empty_terms(Context& cx, int64_t rows, bool best) {
  return {Tensor::empty(cx.allocator, {3, rows}),
          best ? Tensor::empty(cx.allocator, {rows}, DType::kI64) : Tensor()};
}

void merge(const Terms& into, const Terms& from) {
  for (int64_t i = 0; i < into.floats.dim(1); ++i) {
    float &a = into.row(0)[i], b = from.row(0)[i];
    const float largest = b > a ? b : a;
    const auto grown = [&](float sum, float own) {
      return own == largest ? sum : sum * std::exp(own - largest);
    };
    into.row(1)[i] = grown(into.row(1)[i], a) + grown(from.row(1)[i], b);
    into.row(2)[i] += from.row(2)[i];
    if (into.best && b > a) into.best.data<int64_t>()[i] = from.best.data<int64_t>()[i];
    a = largest;
  }
}

// Sum of value(row) over rows in blocks, over the whole batch.
template <typename F>
double sum_in_blocks(Context& cx, const TensorAxis& axis, const Extents& blocks, F&& sum_of) {
  std::vector<double> sums;
  for (const Extent& block : blocks) sums.push_back(sum_of(block));
  merge_tree(std::ssize(sums), [&](int64_t into, int64_t from) {
    sums[static_cast<size_t>(into)] += sums[static_cast<size_t>(from)];
  });
  return tree_sum(cx, *axis.replicas, sums[0]);
}

// The computation of one loss; T is what products take.
template <typename T>
class VocabularyLoss {
 public:
  VocabularyLoss(Context& cx, const TensorAxis& axis, const Tensor& x, const Tensor& table,
                 const Tensor& labels, int64_t vocabulary, const ops::TokenLoss& loss)
      : cx_(cx),
        axis_(axis),
        x_(x),
        table_(table),
        labels_(labels.data<int64_t>()),
        loss_(loss),
        rows_(x.dim(0)),
        hidden_(x.dim(1)),
        first_id_(axis.part(vocabulary).start),
        tokens_(cpu::equal_blocks(rows_, axis.token_blocks())) {
    const int64_t count = axis.blocks, first = int64_t{axis.comm.rank()} * axis.feature_blocks();
    for (int64_t b = first; b < first + axis.feature_blocks(); ++b) {
      const int64_t start = cpu::block_start(vocabulary, count, b);
      ids_.push_back({start - first_id_, cpu::block_start(vocabulary, count, b + 1) - start});
    }
    WEFT_CHECK(ids_.front().start == 0 && ids_.back().start + ids_.back().length == table.dim(0),
               "a shard of {} of {} in {} blocks", table.dim(0), vocabulary, count);
    const int64_t widest = cpu::block_start(vocabulary, count, 1);
    chunk_rows_ = std::max(kChunkRowsMin, kChunk / std::max<int64_t>(1, widest));
  }

  // Sum of the losses over the batch; dx [rows, H], F32, and dtable, F32, where they are wanted.
  double run(const Tensor& dx, const Tensor& dtable, int64_t kept_max, Tensor* best) {
    const bool gradients = dx || dtable;
    if (gradients && rows_ * table_.dim(0) <= kept_max) {
      kept_ = Tensor::empty(cx_.allocator, {rows_ * table_.dim(0)});
    }
    terms_ = find_terms(best != nullptr);
    if (best != nullptr) *best = terms_.best;
    if (gradients) ids_node(0, ids_.size(), dx, dtable);
    return sum_in_blocks(cx_, axis_, tokens_, [&](const Extent& block) {
      double sum = 0;
      for (int64_t row = block.start; row < block.start + block.length; ++row) {
        if (ignored(row)) continue;
        sum += double{terms_.row(0)[row]} + std::log(double{terms_.row(1)[row]}) -
               double{terms_.row(2)[row]};
      }
      return sum;
    });
  }

 private:
  bool ignored(int64_t row) const { return labels_[row] == loss_.ignore_index; }
  // Of the label of a row within a block of ids; -1: it is not there.
  int64_t place(int64_t row, const Extent& ids) const {
    const int64_t at = labels_[row] - first_id_ - ids.start;
    return !ignored(row) && at >= 0 && at < ids.length ? at : -1;
  }
  Extents chunks() const { return parts_of(tokens_, chunk_rows_); }
  float* kept(const Extent& ids, int64_t row) const {
    return kept_.data<float>() + ids.start * rows_ + row * ids.length;
  }
  cpu::Matrix<T> rows_from(int64_t row) const {
    return {x_.data<T>() + row * hidden_, hidden_, false};
  }
  cpu::Matrix<T> table_from(const Extent& ids) const {
    return {table_.data<T>() + ids.start * hidden_, hidden_, false};
  }

  // The logits of these rows and ids, [rows, ids].
  void logits(const Extent& rows, const Extent& ids, float* to) const {
    const cpu::CellCut cut{parts_of(Extents{{0, rows.length}}, kRows),
                           parts_of(Extents{{0, ids.length}}, kFeatures),
                           {{{0, hidden_}}}};
    cpu::Matrix<T> table = table_from(ids);
    table.transposed = true;
    cpu::gemm_cells<T>(cx_.pool, cx_.allocator, cut, rows_from(rows.start), table,
                       [&](const cpu::GemmTile& tile, const float* sums) {
                         for (int64_t i = 0; i < tile.rows; ++i, sums += tile.columns) {
                           std::copy_n(sums, tile.columns,
                                       to + (tile.row + i) * ids.length + tile.column);
                         }
                       });
  }

  void each_row(const Extent& rows, const std::function<void(int64_t)>& body) const {
    cx_.pool.parallel_for(rows.length, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) body(rows.start + i);
    });
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
      merge(nodes[static_cast<size_t>(into)], nodes[static_cast<size_t>(from)]);
    });
    return nodes[0];
  }

  Terms terms_node(size_t first, size_t last, bool best) const {
    if (last - first == 1) return terms_of(ids_[first], best);
    const auto middle = static_cast<size_t>(
        cpu::node_middle(static_cast<int64_t>(first), static_cast<int64_t>(last)));
    const Terms terms = terms_node(first, middle, best);
    merge(terms, terms_node(middle, last, best));
    return terms;
  }

  Terms terms_of(const Extent& ids, bool best) const {
    const Terms terms = empty_terms(cx_, rows_, best);
    const Tensor room = kept_ ? Tensor() : Tensor::empty(cx_.allocator, {chunk_rows_ * ids.length});
    for (const Extent& chunk : chunks()) {
      float* values = kept_ ? kept(ids, chunk.start) : room.data<float>();
      logits(chunk, ids, values);
      each_row(chunk, [&](int64_t row) {
        thread_local std::vector<float> powers;
        if (std::ssize(powers) < ids.length) powers.resize(static_cast<size_t>(ids.length));
        const float* at = values + (row - chunk.start) * ids.length;
        const float largest = cpu::rows<float>().max(at, ids.length);
        terms.row(0)[row] = largest;
        terms.row(1)[row] =
            cpu::rows<float>().exp_shifted(at, largest, 1.0F, powers.data(), ids.length);
        terms.row(2)[row] = place(row, ids) >= 0 ? at[place(row, ids)] : 0.0F;
        if (best) {
          terms.best.data<int64_t>()[row] =
              first_id_ + ids.start + (std::find(at, at + ids.length, largest) - at);
        }
      });
    }
    return terms;
  }

  // dx: the sum over these blocks of ids; dtable: their rows.
  void ids_node(size_t first, size_t last, const Tensor& dx, const Tensor& dtable) {
    if (last - first == 1) {
      const Extent& ids = ids_[first];
      const Tensor room =
          kept_ ? Tensor() : Tensor::empty(cx_.allocator, {chunk_rows_ * ids.length});
      float* rows = dtable ? dtable.data<float>() + ids.start * hidden_ : nullptr;
      tokens_node(0, tokens_.size(), ids, room, dx, rows);
      return;
    }
    const auto middle = static_cast<size_t>(
        cpu::node_middle(static_cast<int64_t>(first), static_cast<int64_t>(last)));
    ids_node(first, middle, dx, dtable);
    const Tensor other = dx ? Tensor::empty(cx_.allocator, dx.shape()) : Tensor();
    ids_node(middle, last, other, dtable);
    if (dx) cpu::add_node(cx_.pool, other.data<float>(), dx.data<float>(), dx.elements());
  }

  // dtable [ids, H]: the sum over these blocks of tokens; their rows of dx.
  void tokens_node(size_t first, size_t last, const Extent& ids, const Tensor& room,
                   const Tensor& dx, float* dtable) {
    if (last - first == 1) {
      bool fresh = true;
      for (const Extent& chunk : parts_of({&tokens_[first], 1}, chunk_rows_)) {
        one_chunk(chunk, ids, room, dx, dtable, fresh);
        fresh = false;
      }
      return;
    }
    const auto middle = static_cast<size_t>(
        cpu::node_middle(static_cast<int64_t>(first), static_cast<int64_t>(last)));
    tokens_node(first, middle, ids, room, dx, dtable);
    const Tensor other =
        dtable != nullptr ? Tensor::empty(cx_.allocator, {ids.length, hidden_}) : Tensor();
    tokens_node(middle, last, ids, room, dx, other ? other.data<float>() : nullptr);
    if (other) cpu::add_node(cx_.pool, other.data<float>(), dtable, other.elements());
  }

  void one_chunk(const Extent& chunk, const Extent& ids, const Tensor& room, const Tensor& dx,
                 float* dtable, bool fresh) {
    float* values = kept_ ? kept(ids, chunk.start) : room.data<float>();
    if (!kept_) logits(chunk, ids, values);
    Tensor rounded;
    if constexpr (!std::is_same_v<T, float>) {
      rounded = Tensor::empty(cx_.allocator, {chunk.length, ids.length}, DTypeOf<T>::value);
    }
    each_row(chunk, [&](int64_t row) {
      float* at = values + (row - chunk.start) * ids.length;
      to_gradient(row, ids, at);
      if constexpr (!std::is_same_v<T, float>) {
        cpu::round(at, rounded.data<T>() + (row - chunk.start) * ids.length, ids.length);
      }
    });
    const T* gradient = nullptr;
    if constexpr (std::is_same_v<T, float>) {
      gradient = values;
    } else {
      gradient = rounded.data<T>();
    }
    cpu::Matrix<T> d{gradient, ids.length, false};
    if (dx) {
      const cpu::CellCut cut{parts_of(Extents{{0, chunk.length}}, kRows),
                             parts_of(Extents{{0, hidden_}}, kWhole),
                             {{{0, ids.length}}}};
      multiply_into(cut, d, table_from(ids), dx.data<float>() + chunk.start * hidden_, true);
    }
    if (dtable == nullptr) return;
    d.transposed = true;
    const cpu::CellCut cut{parts_of(Extents{{0, ids.length}}, kRows),
                           parts_of(Extents{{0, hidden_}}, kWhole),
                           {{{0, chunk.length}}}};
    multiply_into(cut, d, rows_from(chunk.start), dtable, fresh);
  }

  // A row of logits becomes loss.seed times the gradient of its loss.
  void to_gradient(int64_t row, const Extent& ids, float* at) const {
    if (ignored(row)) {
      std::fill_n(at, ids.length, 0.0F);
      return;
    }
    const auto factor = static_cast<float>(loss_.seed / double{terms_.row(1)[row]});
    cpu::rows<float>().exp_shifted(at, terms_.row(0)[row], factor, at, ids.length);
    if (const int64_t label = place(row, ids); label >= 0) {
      at[label] -= static_cast<float>(loss_.seed);
    }
  }

  // to [.., H] := or += the product.
  void multiply_into(const cpu::CellCut& cut, const cpu::Matrix<T>& a, const cpu::Matrix<T>& b,
                     float* to, bool fresh) const {
    cpu::gemm_cells<T>(cx_.pool, cx_.allocator, cut, a, b,
                       [&](const cpu::GemmTile& tile, const float* sums) {
                         for (int64_t i = 0; i < tile.rows; ++i, sums += tile.columns) {
                           float* at = to + (tile.row + i) * hidden_ + tile.column;
                           if (fresh) std::copy_n(sums, tile.columns, at);
                           if (!fresh) cpu::rows<float>().add(sums, at, tile.columns);
                         }
                       });
  }

  Context& cx_;
  const TensorAxis& axis_;
  const Tensor &x_, &table_;
  const int64_t* const labels_;
  const ops::TokenLoss& loss_;
  const int64_t rows_, hidden_, first_id_;
  const Extents tokens_;
  Extents ids_;  // blocks of this rank's shard, from its first id on
  int64_t chunk_rows_ = 0;
  Tensor kept_;  // all logits, block of ids by block of ids, or an empty handle
  Terms terms_;
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
    const double factor = double{*output_grads[0].data<float>()} / loss_.seed;
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

// Inputs: x [..., n, H], table [V/t, H], labels.
class LinearCrossEntropy final : public Loss {
 public:
  LinearCrossEntropy(const TensorAxis& axis, int64_t vocabulary, const ops::TokenLoss& loss,
                     bool x_wanted, bool table_wanted, Tensor* best, int64_t kept_max)
      : Loss(axis, loss),
        vocabulary_(vocabulary),
        x_wanted_(x_wanted),
        table_wanted_(table_wanted),
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
    const Tensor dx = x_wanted_ ? Tensor::empty(cx.allocator, x.shape()) : Tensor();
    const Tensor dtable = table_wanted_ ? Tensor::empty(cx.allocator, table.shape()) : Tensor();
    double total = 0;
    const auto go = [&]<typename T>() {
      VocabularyLoss<T> computed(cx, axis_, x, table, labels, vocabulary_, loss_);
      total = computed.run(dx, dtable, kept_max_, best_);
    };
    if (x.dtype() == DType::kBF16) {
      go.template operator()<bfloat16>();
    } else {
      WEFT_CHECK(x.dtype() == DType::kF32, "blocks of {}", dtype_name(x.dtype()));
      go.template operator()<float>();
    }
    gradients_ = {
        dx ? ops::reshape(cx, tree_scatter(cx, axis_.comm, dx), inputs[0].shape()) : Tensor(),
        dtable};
    return {Tensor::full(cx.allocator, Shape{}, total)};
  }

 private:
  const int64_t vocabulary_;
  const bool x_wanted_, table_wanted_;
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
    const int64_t blocks = std::min<int64_t>(axis_.token_blocks(), rows);
    const double total =
        sum_in_blocks(cx, axis_, cpu::equal_blocks(rows, blocks), [&](const Extent& block) {
          return rule.loss_and_gradient(cx, logits.data<float>() + block.start * classes,
                                        labels.data<int64_t>() + block.start, block.length);
        });
    gradients_ = {wanted_ ? logits : Tensor()};
    return {Tensor::full(cx.allocator, Shape{}, total)};
  }

 private:
  const bool wanted_;
};

}  // namespace

Tensor blocked_linear_cross_entropy(Context& cx, const TensorAxis& axis, const Tensor& x,
                                    const Tensor& table, const Tensor& labels, int64_t vocabulary,
                                    const ops::TokenLoss& loss, Tensor* best, int64_t kept_max) {
  const bool recorded = cx.tape != nullptr;
  return ops::run<LinearCrossEntropy>(cx, {x, table, labels}, axis, vocabulary, loss,
                                      recorded && x.requires_grad(),
                                      recorded && table.requires_grad(), best, kept_max);
}

Tensor blocked_cross_entropy(Context& cx, const TensorAxis& axis, const Tensor& logits,
                             const Tensor& labels, const ops::TokenLoss& loss) {
  return ops::run<CrossEntropy>(cx, {logits, labels}, axis, loss,
                                cx.tape != nullptr && logits.requires_grad());
}

}  // namespace weft::parallel
