// Numerical policy: scores, weights and sums are of the tensors' dtype; the running maximum makes
// every exponent <= 0; a tile of 64 queries by 128 keys stays in the second-level cache.
#include "kernels/attention/block.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/attention/mask.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/rows.h"
#include "kernels/tensor/dispatch.h"
#include "kernels/tensor/strided.h"

namespace weft::attention {
namespace {

constexpr int64_t kQueries = 64, kKeys = 128;

template <typename T>
constexpr T kNothing = -std::numeric_limits<T>::infinity();

// One head of one row of [B, N, T, D] as a matrix of T rows.
template <typename T>
struct HeadView {
  T* data;
  int64_t step;
  T* at(int64_t token) const { return data + token * step; }
  cpu::Matrix<T> matrix(int64_t token, bool transposed = false) const {
    return {at(token), step, transposed};
  }
};

template <typename T>
HeadView<T> head_of(const Tensor& x, int64_t row, int64_t head) {
  return {x.data<T>() + row * x.strides()[0] + head * x.strides()[1],
          std::max(x.strides()[2], x.shape()[3])};
}

// The innermost dim of a matrix has to lie tight, and rows must not overlap.
Tensor with_tight_rows(Context& cx, const Tensor& x) {
  const std::span<const int64_t> strides = x.strides();
  const bool tight = x.shape()[3] == 1 || strides[3] == 1;
  const bool apart = x.shape()[2] <= 1 || strides[2] >= x.shape()[3];
  return tight && apart ? x : clone(cx.pool, x);
}

struct Extents {
  int64_t rows, heads, key_heads, queries, keys, features;
  int64_t group() const { return key_heads == 0 ? 1 : heads / key_heads; }  // no heads: no work
};

Extents extents_of(const Tensor& q, const Tensor& k, const Tensor& v) {
  WEFT_CHECK(q.shape().dims() == 4 && k.shape().dims() == 4 && k.shape() == v.shape() &&
                 q.dim(0) == k.dim(0) && q.dim(3) == k.dim(3) &&
                 (k.dim(1) > 0 ? q.dim(1) % k.dim(1) == 0 : q.dim(1) == 0) &&
                 q.dtype() == k.dtype() && q.dtype() == v.dtype(),
             "attention of q {}, k {}, v {}", q.shape().to_string(), k.shape().to_string(),
             v.shape().to_string());
  return {q.dim(0), q.dim(1), k.dim(1), q.dim(2), k.dim(2), q.dim(3)};
}

// What the loops of forward and backward share.
template <typename T>
struct Problem {
  Context& cx;
  const Parameters& parameters;
  const Extents e;
  const Tensor q, k, v;
  const Mask mask;
  const cpu::RowKernels<T>& rows = cpu::rows<T>();

  Problem(Context& context, const Tensor& query, const Tensor& key, const Tensor& value,
          const Parameters& p)
      : cx(context),
        parameters(p),
        e(extents_of(query, key, value)),
        q(with_tight_rows(context, query)),
        k(with_tight_rows(context, key)),
        v(with_tight_rows(context, value)),
        mask(context, p.visibility, e.rows, e.queries, e.keys) {
    const WeightDropout& d = p.dropout;
    WEFT_CHECK(
        d.rate == 0 || (d.rate > 0 && d.rate < 1 && d.first_head + e.heads <= d.heads &&
                        d.first_query + e.queries <= d.queries && d.first_key + e.keys <= d.keys),
        "dropout {} of a part of {} heads, {} queries, {} keys", d.rate, d.heads, d.queries,
        d.keys);
  }

  Tensor scratch(int64_t elements) const {
    return Tensor::empty(cx.allocator, Shape{elements}, DTypeOf<T>::value);
  }
  // scores := scale q k^T with what is invisible at -infinity; false: nothing is visible.
  bool scores_of(const Tile& tile, int64_t head, T* scores) const {
    const TileView seen = tile.keys == 0 ? TileView::kNone : mask.view(tile);
    if (seen == TileView::kNone) return false;
    cpu::gemm(cx.pool, tile.queries, tile.keys, e.features,
              head_of<T>(q, tile.row, head).matrix(tile.query),
              head_of<T>(k, tile.row, head / e.group()).matrix(tile.key, true), scores, tile.keys,
              false, static_cast<T>(parameters.scale));
    if (seen == TileView::kSome) mask.hide(tile, scores);
    return true;
  }
};

template <typename T>
class Forward {
 public:
  Forward(const Problem<T>& problem, const Tensor& output, const Tensor& log_sum_exp)
      : p_(problem), output_(output), log_sum_exp_(log_sum_exp) {}

  void run() const {
    const int64_t tiles = (p_.e.queries + kQueries - 1) / kQueries;
    p_.cx.pool.parallel_for(p_.e.rows * p_.e.heads * tiles, 1, [&](int64_t begin, int64_t end) {
      const Tensor scores = p_.scratch(2 * kQueries * kKeys);
      for (int64_t item = begin; item < end; ++item) {
        const int64_t head = item / tiles % p_.e.heads, row = item / tiles / p_.e.heads;
        one_tile_of_queries(row, head, item % tiles * kQueries, scores.data<T>());
      }
    });
  }

 private:
  void one_tile_of_queries(int64_t row, int64_t head, int64_t query, T* scores) const {
    const int64_t queries = std::min(kQueries, p_.e.queries - query), features = p_.e.features;
    const HeadView<T> out = head_of<T>(output_, row, head);
    T largest[kQueries], total[kQueries];
    std::fill_n(largest, queries, kNothing<T>);
    std::fill_n(total, queries, T{0});
    for (int64_t i = 0; i < queries; ++i) std::fill_n(out.at(query + i), features, T{0});
    for (int64_t key = 0; key < p_.e.keys; key += kKeys) {
      const Tile tile =
          p_.mask.without_later_keys({row, query, queries, key, std::min(kKeys, p_.e.keys - key)});
      if (!p_.scores_of(tile, head, scores)) continue;
      weigh(tile, head, out, scores, largest, total);
      cpu::gemm(p_.cx.pool, queries, features, tile.keys, cpu::Matrix<T>{scores, tile.keys},
                head_of<T>(p_.v, row, head / p_.e.group()).matrix(key), out.at(query), out.step,
                true);
    }
    T* lse = log_sum_exp_.data<T>() + (row * p_.e.heads + head) * p_.e.queries + query;
    for (int64_t i = 0; i < queries; ++i) {
      lse[i] = total[i] > 0 ? largest[i] + std::log(total[i]) : kNothing<T>;
      if (total[i] > 0) p_.rows.scale(T{1} / total[i], out.at(query + i), features);
    }
  }

  // Scores become weights relative to the new running maximum; what was summed follows it.
  void weigh(const Tile& tile, int64_t head, const HeadView<T>& out, T* scores, T* largest,
             T* total) const {
    for (int64_t i = 0; i < tile.queries; ++i) {
      T* row = scores + i * tile.keys;
      const T now = std::max(largest[i], p_.rows.max(row, tile.keys));
      if (now == kNothing<T>) {
        std::fill_n(row, tile.keys, T{0});
        continue;
      }
      if (now > largest[i] && total[i] > 0) {
        const T shrink = std::exp(largest[i] - now);
        total[i] *= shrink;
        p_.rows.scale(shrink, out.at(tile.query + i), p_.e.features);
      }
      largest[i] = now;
      total[i] += p_.rows.exp_shifted(row, now, T{1}, row, tile.keys);
    }
    if (p_.parameters.dropout.rate > 0) {
      T* keep = scores + kQueries * kKeys;
      draw_kept(p_.parameters.dropout, head, tile, keep);
      p_.rows.multiply(keep, scores, tile.queries * tile.keys);
    }
  }

  const Problem<T>& p_;
  const Tensor &output_, &log_sum_exp_;
};

// For each group of heads that share keys: over tiles of keys, over its heads, over tiles of
// queries.
template <typename T>
class Backward {
 public:
  Backward(const Problem<T>& problem, const Tensor& d_output, const Tensor& log_sum_exp,
           const Tensor& delta, const BlockGrads& grads)
      : p_(problem), d_output_(d_output), log_sum_exp_(log_sum_exp), delta_(delta), grads_(grads) {}

  void run() const {
    p_.cx.pool.parallel_for(p_.e.rows * p_.e.key_heads, 1, [&](int64_t begin, int64_t end) {
      const Tensor scratch = p_.scratch(4 * kQueries * kKeys);
      for (int64_t item = begin; item < end; ++item) {
        one_group(item / p_.e.key_heads, item % p_.e.key_heads, scratch.data<T>());
      }
    });
  }

 private:
  static void clear(const HeadView<T>& x, int64_t tokens, int64_t features) {
    for (int64_t i = 0; i < tokens; ++i) std::fill_n(x.at(i), features, T{0});
  }

  void one_group(int64_t row, int64_t key_head, T* scratch) const {
    const int64_t first = key_head * p_.e.group(), last = first + p_.e.group();
    clear(head_of<T>(grads_.k, row, key_head), p_.e.keys, p_.e.features);
    clear(head_of<T>(grads_.v, row, key_head), p_.e.keys, p_.e.features);
    for (int64_t head = first; head < last; ++head) {
      clear(head_of<T>(grads_.q, row, head), p_.e.queries, p_.e.features);
    }
    for (int64_t key = 0; key < p_.e.keys; key += kKeys) {
      for (int64_t head = first; head < last; ++head) {
        for (int64_t query = 0; query < p_.e.queries; query += kQueries) {
          const int64_t queries = std::min(kQueries, p_.e.queries - query);
          one_tile(p_.mask.without_later_keys(
                       {row, query, queries, key, std::min(kKeys, p_.e.keys - key)}),
                   head, scratch);
        }
      }
    }
  }

  // p = exp(s - lse); dv += (keep p)^T dout; ds = scale p (keep (dout v^T) - delta); dq += ds k;
  // dk += ds^T q.
  void one_tile(const Tile& tile, int64_t head, T* scratch) const {
    const int64_t key_head = head / p_.e.group(), features = p_.e.features;
    const int64_t size = tile.queries * tile.keys;
    T *weights = scratch, *d_weights = scratch + kQueries * kKeys;
    T *keep = scratch + 2 * kQueries * kKeys, *kept = scratch + 3 * kQueries * kKeys;
    if (!p_.scores_of(tile, head, weights)) return;
    const int64_t first = (tile.row * p_.e.heads + head) * p_.e.queries + tile.query;
    const T *lse = log_sum_exp_.data<T>() + first, *delta = delta_.data<T>() + first;
    for (int64_t i = 0; i < tile.queries; ++i) {
      T* row = weights + i * tile.keys;
      if (lse[i] == kNothing<T>) {
        std::fill_n(row, tile.keys, T{0});
      } else {
        p_.rows.exp_shifted(row, lse[i], T{1}, row, tile.keys);
      }
    }
    const HeadView<T> d_out = head_of<T>(d_output_, tile.row, head);
    cpu::gemm(p_.cx.pool, tile.queries, tile.keys, features, d_out.matrix(tile.query),
              head_of<T>(p_.v, tile.row, key_head).matrix(tile.key, true), d_weights, tile.keys);
    const bool drops = p_.parameters.dropout.rate > 0;
    if (drops) {
      draw_kept(p_.parameters.dropout, head, tile, keep);
      p_.rows.multiply(keep, d_weights, size);
      std::copy_n(weights, size, kept);
      p_.rows.multiply(keep, kept, size);
    }
    const HeadView<T> dv = head_of<T>(grads_.v, tile.row, key_head);
    cpu::gemm(p_.cx.pool, tile.keys, features, tile.queries,
              cpu::Matrix<T>{drops ? kept : weights, tile.keys, true}, d_out.matrix(tile.query),
              dv.at(tile.key), dv.step, true);
    const T scale = static_cast<T>(p_.parameters.scale);
    for (int64_t i = 0; i < tile.queries; ++i) {
      const int64_t at = i * tile.keys;
      p_.rows.softmax_gradient(weights + at, d_weights + at, delta[i], scale, d_weights + at,
                               tile.keys);
    }
    const HeadView<T> dq = head_of<T>(grads_.q, tile.row, head);
    cpu::gemm(p_.cx.pool, tile.queries, features, tile.keys, cpu::Matrix<T>{d_weights, tile.keys},
              head_of<T>(p_.k, tile.row, key_head).matrix(tile.key), dq.at(tile.query), dq.step,
              true);
    const HeadView<T> dk = head_of<T>(grads_.k, tile.row, key_head);
    cpu::gemm(p_.cx.pool, tile.keys, features, tile.queries,
              cpu::Matrix<T>{d_weights, tile.keys, true},
              head_of<T>(p_.q, tile.row, head).matrix(tile.query), dk.at(tile.key), dk.step, true);
  }

  const Problem<T>& p_;
  const Tensor &d_output_, &log_sum_exp_, &delta_;
  const BlockGrads& grads_;
};

}  // namespace

void forward_into(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                  const Parameters& parameters, const Tensor& output, const Tensor& log_sum_exp) {
  dispatch_floating(q.dtype(), [&]<typename T>() {
    const Problem<T> problem(cx, q, k, v, parameters);
    Forward<T>(problem, output, log_sum_exp).run();
  });
}

void backward_into(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                   const Tensor& d_output, const Tensor& log_sum_exp, const Tensor& delta,
                   const Parameters& parameters, const BlockGrads& grads) {
  dispatch_floating(q.dtype(), [&]<typename T>() {
    const Problem<T> problem(cx, q, k, v, parameters);
    const Tensor d_out = with_tight_rows(cx, d_output);
    const Tensor lse = as_contiguous(cx.pool, log_sum_exp), dots = as_contiguous(cx.pool, delta);
    Backward<T>(problem, d_out, lse, dots, grads).run();
  });
}

Tensor row_dots(Context& cx, const Tensor& a, const Tensor& b) {
  WEFT_CHECK(a.spec() == b.spec(), "dots of {} and {}", a.shape().to_string(),
             b.shape().to_string());
  const Tensor x = with_tight_rows(cx, a), y = with_tight_rows(cx, b);
  const int64_t heads = a.dim(1), tokens = a.dim(2);
  Tensor out = Tensor::empty(cx.allocator, Shape{a.dim(0), heads, tokens}, a.dtype());
  dispatch_floating(a.dtype(), [&]<typename T>() {
    cx.pool.parallel_for(a.dim(0) * heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const HeadView<T> left = head_of<T>(x, item / heads, item % heads);
        const HeadView<T> right = head_of<T>(y, item / heads, item % heads);
        for (int64_t i = 0; i < tokens; ++i) {
          out.data<T>()[item * tokens + i] = cpu::rows<T>().dot(left.at(i), right.at(i), a.dim(3));
        }
      }
    });
  });
  return out;
}

Tensor empty_by_token(Context& cx, const Shape& shape, DType dtype) {
  const int64_t heads = shape[1], tokens = shape[2], features = shape[3];
  const Tensor storage =
      Tensor::empty(cx.allocator, Shape{shape[0], tokens, heads, features}, dtype);
  const std::array<int64_t, 4> strides{tokens * heads * features, features, heads * features, 1};
  return storage.view(shape, strides, 0);
}

}  // namespace weft::attention
