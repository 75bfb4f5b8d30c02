#include "tests/kernels/cuda/attention_definition.h"

#include <algorithm>
#include <limits>

namespace weft::cuda {
namespace {

constexpr double kHidden = -std::numeric_limits<double>::infinity();

std::vector<double> rounded_values(int64_t n, uint64_t seed, double (*rounded)(double)) {
  std::vector<double> values;
  for (const float value : random_values(n, seed)) {
    values.push_back(rounded(static_cast<double>(value)));
  }
  return values;
}

void add_tokens(const Setting& t, AttentionInputs& in) {
  const AttentionShape& s = t.shape;
  for (int64_t row = 0; row < s.rows; ++row) {
    const int64_t shift = t.shifted ? 3 + row : 0, stride = t.shifted ? 2 : 1;
    for (int64_t i = 0; i < s.queries; ++i) {
      in.query_position.push_back(i * stride + shift);
      in.query_document.push_back(i * 3 / (s.queries + 1));
    }
    for (int64_t i = 0; i < s.keys; ++i) {
      in.key_position.push_back(i * stride);
      in.key_document.push_back(i * 3 / (s.keys + 1));
      in.valid.push_back(!t.padded || (i + 5 * row) % 7 != 0 ? 1 : 0);
      if (t.padded && row == 1) in.valid.back() = 0;  // nothing to see
    }
  }
  for (int64_t i = 0; i < s.queries; ++i)
    in.query_index.push_back(t.scattered ? i * 7 % 71 : i + 3);
  for (int64_t i = 0; i < s.keys; ++i) in.key_index.push_back(t.scattered ? i * 5 % 131 : i + 4);
}

bool sees(const Setting& t, const AttentionInputs& in, int64_t row, int64_t head, int64_t query,
          int64_t key) {
  const auto i = static_cast<size_t>(row * t.shape.queries + query);
  const auto j = static_cast<size_t>(row * t.shape.keys + key);
  const int64_t ahead = in.key_position[j] - in.query_position[i];
  const auto hidden_by_mask = [&] {
    return !in.mask.empty() && in.mask[ScoreDims(t.shape, t.mask).at(row, head, query, key)] == 0;
  };
  return !(t.padded && in.valid[j] == 0) &&
         !(t.documents && in.query_document[i] != in.key_document[j]) && !(t.causal && ahead > 0) &&
         !(t.window_right >= 0 && ahead > t.window_right) &&
         !(t.window_left >= 0 && -ahead > t.window_left) && !hidden_by_mask();
}

double dot(const std::vector<double>& a, size_t i, const std::vector<double>& b, size_t j, int n) {
  double sum = 0;
  for (int d = 0; d < n; ++d) sum += a[i + static_cast<size_t>(d)] * b[j + static_cast<size_t>(d)];
  return sum;
}
void add(std::vector<double>& to, size_t i, double factor, const std::vector<double>& from,
         size_t j, int n) {
  for (int d = 0; d < n; ++d) {
    to[i + static_cast<size_t>(d)] += factor * from[j + static_cast<size_t>(d)];
  }
}

// The scores of one query: their weights, and the slopes that a soft cap leaves.
struct Weights {
  std::vector<double> weight, keep, slope;
  double lse = 0;
};

int64_t ahead_of(const AttentionShape& s, const AttentionInputs& in, int64_t row, int64_t query,
                 int64_t key) {
  return in.key_position[static_cast<size_t>(row * s.keys + key)] -
         in.query_position[static_cast<size_t>(row * s.queries + query)];
}
// The entry of the table by distance.
size_t entry_of(const Setting& t, const AttentionInputs& in, int64_t row, int64_t head,
                int64_t query, int64_t key) {
  const int64_t ahead = ahead_of(t.shape, in, row, query, key);
  const int64_t table = row * t.groups / t.shape.rows * t.shape.heads + head;
  return static_cast<size_t>(table * (2 * t.reach + 1) + t.reach +
                             std::clamp(ahead, -t.reach, t.reach));
}

double score_of(const Setting& t, const AttentionInputs& in, int64_t row, int64_t head,
                int64_t query, int64_t key, double& slope) {
  const AttentionShape& s = t.shape;
  double score = scale_of(t) * dot(in.q, index_of(s, Side::kQueries, row, head, query), in.k,
                                   index_of(s, Side::kKeys, row, head, key), s.width);
  const double bent = t.soft_cap > 0 ? std::tanh(score / t.soft_cap) : 0;
  if (t.soft_cap > 0) score = t.soft_cap * bent;
  slope = 1 - bent * bent;
  if (t.alibi) {
    score -= static_cast<double>(in.slopes[static_cast<size_t>(head)]) *
             std::abs(static_cast<double>(ahead_of(s, in, row, query, key)));
  }
  if (t.reach >= 0) score += in.by_distance[entry_of(t, in, row, head, query, key)];
  if (!in.bias.empty()) score += in.bias[ScoreDims(s, t.bias).at(row, head, query, key)];
  return sees(t, in, row, head, query, key) ? score : kHidden;
}

Weights weights_of(const Setting& t, const AttentionInputs& in, int64_t row, int64_t head,
                   int64_t query) {
  const AttentionShape& s = t.shape;
  Weights w;
  std::vector<double> scores;
  const double sink = t.sinks ? in.sinks[static_cast<size_t>(head)] : kHidden;
  double largest = sink;
  for (int64_t key = 0; key < s.keys; ++key) {
    w.slope.push_back(0);
    scores.push_back(score_of(t, in, row, head, query, key, w.slope.back()));
    largest = std::max(largest, scores.back());
    const int64_t index = ((row + 1) * (s.heads + 2) + head + 2) * (s.queries + 3) +
                          in.query_index[static_cast<size_t>(query)];
    const int64_t at = index * (s.keys + 4) + in.key_index[static_cast<size_t>(key)];
    const DropRule rule(t.dropout);
    const bool stays = kept_at(kDropoutKey, static_cast<uint64_t>(at), rule.dropped);
    w.keep.push_back(stays ? rule.factor : 0);
  }
  const bool none = std::isinf(largest);
  double total = none ? 0 : std::exp(sink - largest);
  for (const double score : scores) total += none ? 0 : std::exp(score - largest);
  w.lse = none ? largest : largest + std::log(total);
  for (const double score : scores) w.weight.push_back(none ? 0 : std::exp(score - w.lse));
  return w;
}

// What one query of one head adds to all results.
void add_query(const Setting& t, const AttentionInputs& in, int64_t row, int64_t head,
               int64_t query, AttentionResults& e) {
  const AttentionShape& s = t.shape;
  const Weights w = weights_of(t, in, row, head, query);
  const size_t q = index_of(s, Side::kQueries, row, head, query);
  const size_t o = index_of(s, Side::kOutputs, row, head, query);
  e.lse.push_back(w.lse);
  for (int64_t key = 0; key < s.keys; ++key) {
    const auto j = static_cast<size_t>(key);
    const size_t at = index_of(s, Side::kValues, row, head, key);
    add(e.out, o, w.keep[j] * w.weight[j], in.v, at, s.value_width);
    add(e.dv, at, w.keep[j] * w.weight[j], in.d_out, o, s.value_width);
  }
  const double delta = dot(e.out, o, in.d_out, o, s.value_width);
  for (int64_t key = 0; key < s.keys; ++key) {
    const auto j = static_cast<size_t>(key);
    const size_t at = index_of(s, Side::kKeys, row, head, key);
    const double d_weight =
        dot(in.d_out, o, in.v, index_of(s, Side::kValues, row, head, key), s.value_width);
    const double d_score = w.weight[j] * (w.keep[j] * d_weight - delta);
    if (!t.bias.empty()) e.d_bias[ScoreDims(s, t.bias).at(row, head, query, key)] += d_score;
    if (t.reach >= 0) e.d_by_distance[entry_of(t, in, row, head, query, key)] += d_score;
    add(e.dq, q, scale_of(t) * d_score * w.slope[j], in.k, at, s.width);
    add(e.dk, at, scale_of(t) * d_score * w.slope[j], in.q, q, s.width);
  }
  if (t.sinks && !std::isinf(w.lse)) {
    const auto h = static_cast<size_t>(head);
    e.d_sinks[h] -= std::exp(in.sinks[h] - w.lse) * delta;
  }
}

}  // namespace

ScoreDims::ScoreDims(const AttentionShape& shape, const std::string& dims)
    : rows(dims == "whole" || dims == "row" ? shape.rows : 1),
      heads(dims == "whole" || dims == "head" ? shape.heads : 1),
      queries(shape.queries),
      keys(shape.keys) {}

size_t ScoreDims::at(int64_t row, int64_t head, int64_t query, int64_t key) const {
  const int64_t slot = (rows == 1 ? 0 : row) * heads + (heads == 1 ? 0 : head);
  return static_cast<size_t>((slot * queries + query) * keys + key);
}

int64_t width_of(const AttentionShape& shape, Side side) {
  return side == Side::kQueries || side == Side::kKeys ? shape.width : shape.value_width;
}

// head: of the queries.
size_t index_of(const AttentionShape& s, Side side, int64_t row, int64_t head, int64_t token) {
  const bool of_keys = side == Side::kKeys || side == Side::kValues;
  const int64_t heads = of_keys ? s.key_heads : s.heads, tokens = of_keys ? s.keys : s.queries;
  const int64_t own = of_keys ? head / (s.heads / s.key_heads) : head;
  return static_cast<size_t>(((row * heads + own) * tokens + token) * width_of(s, side));
}

double scale_of(const Setting& t) { return 1 / std::sqrt(static_cast<double>(t.shape.width)); }

AttentionInputs attention_inputs(const Setting& t, double (*rounded)(double)) {
  const AttentionShape& s = t.shape;
  AttentionInputs in;
  in.q = rounded_values(s.rows * s.heads * s.queries * s.width, 61, rounded);
  in.k = rounded_values(s.rows * s.key_heads * s.keys * s.width, 62, rounded);
  in.v = rounded_values(s.rows * s.key_heads * s.keys * s.value_width, 63, rounded);
  in.d_out = rounded_values(s.rows * s.heads * s.queries * s.value_width, 64, rounded);
  if (!t.bias.empty()) in.bias = rounded_values(ScoreDims(s, t.bias).elements(), 65, rounded);
  if (t.reach >= 0) {
    in.by_distance = rounded_values(t.groups * s.heads * (2 * t.reach + 1), 67, rounded);
  }
  if (t.sinks) in.sinks = rounded_values(s.heads, 66, rounded);
  add_tokens(t, in);
  for (int64_t head = 0; head < s.heads; ++head) {
    in.slopes.push_back(0.25F / static_cast<float>(1 + head));
  }
  if (!t.mask.empty()) {  // two of three; to the second query nothing is visible
    const ScoreDims dims(s, t.mask);
    for (int64_t i = 0; i < dims.elements(); ++i) {
      const bool second = i / dims.keys % dims.queries == 1;
      in.mask.push_back(!second && uniform_at({3, 4}, static_cast<uint64_t>(i)) < 0.67F ? 1 : 0);
    }
  }
  return in;
}

AttentionResults attention_definition(const Setting& t, const AttentionInputs& in) {
  const AttentionShape& s = t.shape;
  AttentionResults e;
  e.out.resize(in.d_out.size());
  e.dq.resize(in.q.size());
  e.dk.resize(in.k.size());
  e.dv.resize(in.v.size());
  e.d_bias.resize(in.bias.size());
  e.d_by_distance.resize(in.by_distance.size());
  e.d_sinks.resize(in.sinks.size());
  for (int64_t row = 0; row < s.rows; ++row) {
    for (int64_t head = 0; head < s.heads; ++head) {
      for (int64_t query = 0; query < s.queries; ++query) add_query(t, in, row, head, query, e);
    }
  }
  return e;
}

}  // namespace weft::cuda
