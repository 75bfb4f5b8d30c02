#include "kernels/attention/problem.h"

#include <cmath>

#include "kernels/tensor/strided.h"

namespace weft::attention {
namespace {

Extents extents_of(const Tensor& q, const Tensor& k, const Tensor& v) {
  return {q.dim(0), q.dim(1), k.dim(1), q.dim(2), k.dim(2), q.dim(3), v.dim(3)};
}

// The tables by distance as tiles read them (tiles.h): turned round, their ends repeated.
template <typename In>
Tensor laid_out(Context& cx, const Tensor& table) {
  using Sum = typename cpu::SumOf<In>::type;
  if (!table) return table;
  const Tensor from = as_contiguous(cx.pool, table);
  const int64_t width = table.shape()[-1], rows = table.elements() / width;
  const int64_t reach = (width - 1) / 2, entries = cpu::distance_entries(reach);
  const Tensor to = Tensor::empty(cx.allocator, {rows, entries}, DTypeOf<Sum>::value);
  for (int64_t i = 0; i < rows * entries; ++i) {
    const int64_t behind = std::clamp(i % entries - entries / 2, -reach, reach);
    const int64_t at = i / entries * width + reach - behind;
    to.data<Sum>()[i] = static_cast<Sum>(from.data<In>()[at]);
  }
  return to;
}

struct Token {
  int64_t row, at;
};

// Keys that do not count among ones that do, which tiles therefore multiply by weights of 0; also
// those that share a word of pairs with one that counts.
std::vector<Token> hidden_among_others(const Tensor& key_valid) {
  constexpr int64_t kNeighbours = 1;
  std::vector<Token> hidden;
  const int64_t keys = key_valid.dim(1);
  for (int64_t row = 0; row < key_valid.dim(0); ++row) {
    const uint8_t* valid = key_valid.data<uint8_t>() + row * keys;
    const auto counts = [](uint8_t flag) { return flag != 0; };
    const int64_t first = std::find_if(valid, valid + keys, counts) - valid;
    int64_t last = keys - 1;
    while (last > first && valid[last] == 0) --last;
    const int64_t past = std::min(keys, last + 1 + kNeighbours);
    for (int64_t at = std::max<int64_t>(0, first - kNeighbours); at < past; ++at) {
      if (valid[at] == 0) hidden.push_back({row, at});
    }
  }
  return hidden;
}

// Heads [B, Nk, Tk, D] whose hidden keys multiply as zeros do: NaN and infinities there are gone.
template <typename In>
Tensor with_padding_finite(Context& cx, const Tensor& x, const std::vector<Token>& hidden) {
  const auto each = [&](const Tensor& heads, auto&& act) {
    cx.pool.parallel_for(std::ssize(hidden), 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Token& token = hidden[static_cast<size_t>(i)];
        for (int64_t head = 0; head < heads.dim(1); ++head) {
          act(rows_of<In>(heads, token.row, head, token.at).data);
        }
      }
    });
  };
  std::atomic<bool> finite{true};
  each(x, [&](const In* features) {
    const bool all = std::all_of(features, features + x.dim(3), [](In value) {
      return std::isfinite(static_cast<typename cpu::SumOf<In>::type>(value));
    });
    if (!all) finite = false;
  });
  if (finite) return x;
  Tensor clean = clone(cx.pool, x);
  each(clean, [&](In* features) { std::fill_n(features, x.dim(3), In{}); });
  return clean;
}

template <typename In>
Tensor with_padding_finite(Context& cx, const Tensor& x, const Visibility& visibility) {
  if (!visibility.key_valid) return x;
  const Tensor valid = as_contiguous(cx.pool, visibility.key_valid);
  return with_padding_finite<In>(cx, x, hidden_among_others(valid));
}

}  // namespace

Tensor with_tight_rows(Context& cx, const Tensor& x) {
  const std::span<const int64_t> strides = x.strides();
  const bool tight = x.shape()[3] == 1 || strides[3] == 1;
  const bool apart = x.shape()[2] <= 1 || strides[2] >= x.shape()[3];
  return tight && apart ? x : clone(cx.pool, x);
}

template <typename In>
Problem<In>::Problem(Context& context, const Tensor& query, const Tensor& key, const Tensor& value,
                     const Parameters& p)
    : cx(context),
      parameters(p),
      e(extents_of(query, key, value)),
      q(with_tight_rows(context, query)),
      k(with_padding_finite<In>(context, with_tight_rows(context, key), p.visibility)),
      v(with_padding_finite<In>(context, with_tight_rows(context, value), p.visibility)),
      bias(p.bias ? as_contiguous(context.pool, p.bias) : Tensor()),
      sinks(p.sinks ? as_contiguous(context.pool, p.sinks) : Tensor()),
      distance_bias(laid_out<In>(context, p.distance_bias)),
      mask(context, p.visibility, !p.alibi_slopes.empty() || p.distance_bias, e.rows, e.heads,
           e.queries, e.keys),
      kernels(cpu::tiles<In>(e.features)) {}

template <typename In>
TileExtras<In>::TileExtras(const Problem<In>& problem, Scratch& scratch, int64_t keys)
    : p_(problem) {
  const int64_t size = keys * kLanes;
  const bool adds = p_.bias || p_.mask.arbitrary();
  if (adds || p_.drops()) by_query_ = scratch.of<Sum>(size);
  if (adds) bias_ = scratch.of<Sum>(size);
  if (p_.drops()) keep_ = scratch.of<Sum>(size);
  if (p_.parameters.soft_cap > 0) slope_ = scratch.of<Sum>(size);
}

// Bias and arbitrary mask of the tile, [K, Q].
template <typename In>
const typename TileExtras<In>::Sum* TileExtras<In>::added(const Tile& tile) {
  if (p_.bias) {
    const Tensor& bias = p_.bias;
    const int64_t row = bias.dim(0) == 1 ? 0 : tile.row, head = bias.dim(1) == 1 ? 0 : tile.head;
    const int64_t first = (row * bias.dim(1) + head) * p_.e.queries + tile.query;
    for (int64_t i = 0; i < tile.queries; ++i) {
      const In* from = bias.data<In>() + (first + i) * p_.e.keys + tile.key;
      Sum* to = by_query_ + i * tile.keys;
      for (int64_t j = 0; j < tile.keys; ++j) to[j] = static_cast<Sum>(from[j]);
    }
  } else {
    std::fill_n(by_query_, tile.queries * tile.keys, Sum{0});
  }
  if (p_.mask.arbitrary()) p_.mask.hide_arbitrary(tile, by_query_);
  p_.kernels.transpose({by_query_, tile.keys}, tile.queries, tile.keys, bias_, cpu::kTileLanes);
  return bias_;
}

template <typename In>
void TileExtras<In>::finish_scores(const Tile& tile, TileView view, bool with_slope, Sum* scores) {
  if (p_.adjusts()) {
    cpu::ScoreTerms<Sum> terms;
    terms.cap = static_cast<Sum>(p_.parameters.soft_cap);
    if (!p_.parameters.alibi_slopes.empty()) {
      terms.alibi_slope =
          static_cast<Sum>(p_.parameters.alibi_slopes[static_cast<size_t>(tile.head)]);
      terms.query_position = p_.mask.query_position(tile);
      terms.key_position = p_.mask.key_position(tile);
    }
    if (p_.distance_bias) {
      terms.distances = p_.distances(tile);
      terms.distance_bias = p_.distance_bias.template data<Sum>() +
                            p_.distance_row(tile.row, tile.head) * p_.distance_bias.dim(1);
    }
    if (p_.bias || (p_.mask.arbitrary() && view == TileView::kSome)) terms.bias = added(tile);
    if (p_.bias) terms.least = static_cast<Sum>(kLeastScore);
    p_.kernels.adjust(tile.keys, terms, scores, with_slope ? slope_ : nullptr);
  }
  if (view == TileView::kSome) p_.kernels.hide(tile.keys, p_.mask.terms(tile), scores);
}

template <typename In>
const typename TileExtras<In>::Sum* TileExtras<In>::keep(const Tile& tile) {
  if (!p_.drops()) return nullptr;
  draw_kept(p_.parameters.dropout, tile, by_query_);
  p_.kernels.transpose({by_query_, tile.keys}, tile.queries, tile.keys, keep_, cpu::kTileLanes);
  return keep_;
}

template struct Problem<float>;
template struct Problem<double>;
template struct Problem<bfloat16>;
template class TileExtras<float>;
template class TileExtras<double>;
template class TileExtras<bfloat16>;

}  // namespace weft::attention
