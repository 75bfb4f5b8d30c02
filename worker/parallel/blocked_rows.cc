#include "worker/parallel/blocked_rows.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/cpu/rows.h"
#include "kernels/cuda/backend.h"
#include "kernels/tensor/transfer.h"

namespace weft::parallel {
namespace {

// Of a vector.
Tensor part_of_rows(const Tensor& x, int64_t first, int64_t length) {
  return x.view({length}, std::array<int64_t, 1>{1}, first);
}

ops::TokenLoss of_shard(const LogitRows& which) {
  ops::TokenLoss loss = which.loss;
  loss.shard.first = which.first_id;
  return loss;
}

// Row by row on the CPU.
class HostRows {
 public:
  HostRows(Context& cx, const Tensor& logits, const LogitRows& which, const Terms& terms)
      : cx_(cx),
        which_(which),
        terms_(terms),
        values_(logits.data<float>()),
        width_(logits.dim(1)) {
    for (int which_term = 0; which_term < 3; ++which_term) {
      at_[static_cast<size_t>(which_term)] =
          terms.floats.data<float>() + which_term * terms.floats.dim(1) + which.first_row;
    }
    labels_ = which.labels.data<int64_t>() + which.first_row;
    rows_ = logits.dim(0);
  }

  void find() const {
    each([&](int64_t row) {
      thread_local std::vector<float> powers;
      if (std::ssize(powers) < width_) powers.resize(static_cast<size_t>(width_));
      const float* at = values_ + row * width_;
      const float largest = cpu::rows<float>().max(at, width_);
      at_[0][row] = largest;
      at_[1][row] = cpu::rows<float>().exp_shifted(at, largest, 1.0F, powers.data(), width_);
      at_[2][row] = place(row) >= 0 ? at[place(row)] : 0.0F;
      if (terms_.best) {
        terms_.best.data<int64_t>()[which_.first_row + row] =
            which_.first_id + (std::find(at, at + width_, largest) - at);
      }
    });
  }

  void to_gradients() const {
    each([&](int64_t row) {
      float* at = values_ + row * width_;
      if (ignored(row)) {
        std::fill_n(at, width_, 0.0F);
        return;
      }
      const auto factor = static_cast<float>(which_.loss.seed / double{at_[1][row]});
      cpu::rows<float>().exp_shifted(at, at_[0][row], factor, at, width_);
      if (const int64_t label = place(row); label >= 0) {
        at[label] -= static_cast<float>(which_.loss.seed);
      }
    });
  }

 private:
  bool ignored(int64_t row) const { return labels_[row] == which_.loss.ignore_index; }
  // Of the label of a row among the ids; -1: it is not there.
  int64_t place(int64_t row) const {
    const int64_t at = labels_[row] - which_.first_id;
    return !ignored(row) && at >= 0 && at < width_ ? at : -1;
  }
  template <typename F>
  void each(F&& body) const {
    cx_.pool.parallel_for(rows_, 4, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) body(row);
    });
  }

  Context& cx_;
  const LogitRows& which_;
  const Terms& terms_;
  float* const values_;
  const int64_t width_;
  std::array<float*, 3> at_{};
  const int64_t* labels_ = nullptr;
  int64_t rows_ = 0;
};

void find_on_gpu(Context& cx, const Tensor& logits, const LogitRows& which, const Terms& terms) {
  cuda::Backend& gpu = cuda::backend(cx);
  const int64_t rows = logits.dim(0), first = which.first_row;
  const Tensor largest = terms.part(0, first, rows);
  const Tensor others = Tensor::empty(cx.allocator, {2, rows});
  gpu.loss_terms(logits, part_of_rows(which.labels, first, rows), of_shard(which), largest, others);
  for (int i = 0; i < 2; ++i) {
    gpu.copy(part_of_rows(others, i * rows, rows), terms.part(1 + i, first, rows));
  }
  if (!terms.best) return;
  const Tensor best = part_of_rows(terms.best, first, rows);
  gpu.extreme_along(true, logits, {rows, logits.dim(1), 1}, Tensor::empty(cx.allocator, {rows}),
                    best);
  change_on_host<int64_t>(best, [&](int64_t* id) {
    for (int64_t row = 0; row < rows; ++row) id[row] += which.first_id;
  });
}

// Each row's sums are scaled by exp(own largest - largest of both), which is 1 for one of them.
void merge_on_gpu(Context& cx, const Terms& into, const Terms& from) {
  cuda::Backend& gpu = cuda::backend(cx);
  const Tensor largest = Tensor::empty(cx.allocator, into.row(0).shape());
  gpu.extreme(true, into.row(0), from.row(0), largest);
  const Tensor grown = Tensor::empty(cx.allocator, largest.shape());
  for (const Terms* one : {&into, &from}) {
    gpu.binary(ops::Arithmetic::kSubtract, one->row(0), largest, grown);
    gpu.unary(cpu::Unary::kExp, 0, 0, grown, grown);
    gpu.binary(ops::Arithmetic::kMultiply, one->row(1), grown, one->row(1));
  }
  gpu.add(from.row(1), into.row(1));
  gpu.add(from.row(2), into.row(2));
  gpu.copy(largest, into.row(0));
}

void merge_best(const Terms& into, const Terms& from) {
  on_host<float>(into.row(0), [&](const float* own) {
    on_host<float>(from.row(0), [&](const float* other) {
      on_host<int64_t>(from.best, [&](const int64_t* id) {
        change_on_host<int64_t>(into.best, [&](int64_t* best) {
          for (int64_t row = 0; row < into.best.elements(); ++row) {
            if (other[row] > own[row]) best[row] = id[row];
          }
        });
      });
    });
  });
}

void merge_on_cpu(const Terms& into, const Terms& from) {
  const Tensor sums[2][3] = {{into.row(0), into.row(1), into.row(2)},
                             {from.row(0), from.row(1), from.row(2)}};
  const auto at = [&](int node, int which) { return sums[node][which].data<float>(); };
  for (int64_t i = 0; i < into.floats.dim(1); ++i) {
    float &a = at(0, 0)[i], b = at(1, 0)[i];
    const float largest = b > a ? b : a;
    const auto grown = [&](float sum, float own) {
      return own == largest ? sum : sum * std::exp(own - largest);
    };
    at(0, 1)[i] = grown(at(0, 1)[i], a) + grown(at(1, 1)[i], b);
    at(0, 2)[i] += at(1, 2)[i];
    a = largest;
  }
}

}  // namespace

Tensor Terms::part(int64_t which, int64_t first, int64_t length) const {
  return part_of_rows(floats, which * floats.dim(1) + first, length);
}

Terms empty_terms(Context& cx, int64_t rows, bool best) {
  return {Tensor::empty(cx.allocator, {3, rows}),
          best ? Tensor::empty(cx.allocator, {rows}, DType::kI64) : Tensor()};
}

void find_row_terms(Context& cx, const Tensor& logits, const LogitRows& which, const Terms& terms) {
  if (!cx.device().is_cpu()) return find_on_gpu(cx, logits, which, terms);
  HostRows(cx, logits, which, terms).find();
}

void merge(Context& cx, const Terms& into, const Terms& from) {
  if (into.best) merge_best(into, from);
  if (!cx.device().is_cpu()) return merge_on_gpu(cx, into, from);
  merge_on_cpu(into, from);
}

Tensor log_sums(Context& cx, const Terms& terms) {
  if (cx.device().is_cpu()) return Tensor();
  cuda::Backend& gpu = cuda::backend(cx);
  const Tensor lse = Tensor::empty(cx.allocator, {terms.floats.dim(1)});
  gpu.unary(cpu::Unary::kLog, 0, 0, terms.row(1), lse);
  gpu.add(terms.row(0), lse);
  return lse;
}

void to_gradients(Context& cx, const Tensor& logits, const LogitRows& which, const Terms& terms,
                  const Tensor& log_sums) {
  if (cx.device().is_cpu()) return HostRows(cx, logits, which, terms).to_gradients();
  const int64_t rows = logits.dim(0), first = which.first_row;
  cuda::backend(cx).loss_gradient(part_of_rows(log_sums, first, rows),
                                  part_of_rows(which.labels, first, rows), of_shard(which),
                                  Tensor::full(cx.allocator, Shape{}, which.loss.seed), logits);
}

std::vector<double> row_losses(const Terms& terms, const Tensor& labels,
                               const ops::TokenLoss& loss) {
  const auto rows = static_cast<size_t>(terms.floats.dim(1));
  std::vector<double> losses(rows);
  on_host<float>(terms.floats, [&](const float* at) {
    on_host<int64_t>(labels, [&](const int64_t* label) {
      for (size_t row = 0; row < rows; ++row) {
        if (label[row] == loss.ignore_index) continue;
        losses[row] =
            double{at[row]} + std::log(double{at[rows + row]}) - double{at[2 * rows + row]};
      }
    });
  });
  return losses;
}

}  // namespace weft::parallel
