// Fused attention against the sums of its definition in float64, over widths, rules and types.
#include "kernels/cuda/attention.h"

#include <algorithm>
#include <limits>

#include "kernels/attention/attention.h"
#include "tests/kernels/cuda/comparison.h"

namespace weft::cuda {
namespace {

struct Setting {
  std::string name;
  AttentionShape shape;
  bool causal = false;
  int64_t window_left = -1, window_right = -1;
  double soft_cap = 0;
  bool alibi = false, padded = false, documents = false, shifted = false, by_token = false;
  double dropout = 0;
  bool wide = false;      // fp32 results
  int64_t unaligned = 0;  // elements added to each row
};

// The arrays of one setting, contiguous by [row, head, token, feature], in double.
struct Inputs {
  std::vector<double> q, k, v, d_out;
  std::vector<int64_t> query_position, key_position, query_document, key_document;
  std::vector<uint8_t> valid;
  std::vector<float> slopes;
};
struct Expected {
  std::vector<double> out, lse, dq, dk, dv;
};

constexpr RandomKey kDropoutKey{.seed = 0x1234567890ABCDEF, .stream = 77};

size_t index_of(const AttentionShape& s, bool of_keys, int64_t row, int64_t head, int64_t token) {
  const int64_t heads = of_keys ? s.key_heads : s.heads, tokens = of_keys ? s.keys : s.queries;
  return static_cast<size_t>(((row * heads + head) * tokens + token) * s.width);
}

template <typename T>
std::vector<double> rounded_values(int64_t n, uint64_t seed) {
  std::vector<double> values;
  for (const float value : random_values(n, seed)) {
    values.push_back(static_cast<double>(static_cast<float>(T(value))));
  }
  return values;
}

template <typename T>
Inputs inputs_of(const Setting& setting) {
  const AttentionShape& s = setting.shape;
  Inputs in;
  const int64_t queries = s.rows * s.heads * s.queries * s.width;
  const int64_t keys = s.rows * s.key_heads * s.keys * s.width;
  in.q = rounded_values<T>(queries, 61);
  in.k = rounded_values<T>(keys, 62);
  in.v = rounded_values<T>(keys, 63);
  in.d_out = rounded_values<T>(queries, 64);
  for (int64_t row = 0; row < s.rows; ++row) {
    const int64_t shift = setting.shifted ? 3 + row : 0, stride = setting.shifted ? 2 : 1;
    for (int64_t i = 0; i < s.queries; ++i) {
      in.query_position.push_back(i * stride + shift);
      in.query_document.push_back(i * 3 / (s.queries + 1));
    }
    for (int64_t i = 0; i < s.keys; ++i) {
      in.key_position.push_back(i * stride);
      in.key_document.push_back(i * 3 / (s.keys + 1));
      in.valid.push_back(!setting.padded || (i + 5 * row) % 7 != 0 ? 1 : 0);
      if (setting.padded && row == 1) in.valid.back() = 0;  // nothing to see
    }
  }
  for (int64_t head = 0; head < s.heads; ++head) {
    in.slopes.push_back(0.25F / static_cast<float>(1 + head));
  }
  return in;
}

bool sees(const Setting& t, const Inputs& in, int64_t row, int64_t query, int64_t key) {
  const auto i = static_cast<size_t>(row * t.shape.queries + query);
  const auto j = static_cast<size_t>(row * t.shape.keys + key);
  const int64_t ahead = in.key_position[j] - in.query_position[i];
  return !(t.padded && in.valid[j] == 0) &&
         !(t.documents && in.query_document[i] != in.key_document[j]) && !(t.causal && ahead > 0) &&
         !(t.window_right >= 0 && ahead > t.window_right) &&
         !(t.window_left >= 0 && -ahead > t.window_left);
}

double scale_of(const Setting& t) { return 1 / std::sqrt(static_cast<double>(t.shape.width)); }

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
  double lse;
};
Weights weights_of(const Setting& t, const Inputs& in, int64_t row, int64_t head, int64_t query) {
  const AttentionShape& s = t.shape;
  const int64_t key_head = head / (s.heads / s.key_heads);
  Weights w;
  std::vector<double> scores;
  double largest = -std::numeric_limits<double>::infinity();
  for (int64_t key = 0; key < s.keys; ++key) {
    double score = scale_of(t) * dot(in.q, index_of(s, false, row, head, query), in.k,
                                     index_of(s, true, row, key_head, key), s.width);
    const double bent = t.soft_cap > 0 ? std::tanh(score / t.soft_cap) : 0;
    if (t.soft_cap > 0) score = t.soft_cap * bent;
    const int64_t ahead = in.key_position[static_cast<size_t>(row * s.keys + key)] -
                          in.query_position[static_cast<size_t>(row * s.queries + query)];
    if (t.alibi) {
      score -= static_cast<double>(in.slopes[static_cast<size_t>(head)]) *
               std::abs(static_cast<double>(ahead));
    }
    if (!sees(t, in, row, query, key)) score = -std::numeric_limits<double>::infinity();
    const int64_t index = ((row + 1) * (s.heads + 2) + head + 2) * (s.queries + 3) + query + 3;
    const float uniform =
        uniform_at(kDropoutKey, static_cast<uint64_t>(index * (s.keys + 4) + key + 4));
    w.keep.push_back(uniform >= static_cast<float>(t.dropout) ? 1 / (1 - t.dropout) : 0);
    w.slope.push_back(1 - bent * bent);
    scores.push_back(score);
    largest = std::max(largest, score);
  }
  double total = 0;
  const bool none = std::isinf(largest);
  for (const double score : scores) total += none ? 0 : std::exp(score - largest);
  w.lse = none ? largest : largest + std::log(total);
  for (const double score : scores) w.weight.push_back(none ? 0 : std::exp(score - w.lse));
  return w;
}

Expected expected_of(const Setting& t, const Inputs& in) {
  const AttentionShape& s = t.shape;
  Expected e{std::vector<double>(in.q.size()),
             {},
             std::vector<double>(in.q.size()),
             std::vector<double>(in.k.size()),
             std::vector<double>(in.v.size())};
  for (int64_t row = 0; row < s.rows; ++row) {
    for (int64_t head = 0; head < s.heads; ++head) {
      for (int64_t query = 0; query < s.queries; ++query) {
        const Weights w = weights_of(t, in, row, head, query);
        const size_t i = index_of(s, false, row, head, query);
        e.lse.push_back(w.lse);
        const auto at_key = [&](int64_t key) {
          return index_of(s, true, row, head / (s.heads / s.key_heads), key);
        };
        for (int64_t key = 0; key < s.keys; ++key) {
          const auto k = static_cast<size_t>(key);
          add(e.out, i, w.keep[k] * w.weight[k], in.v, at_key(key), s.width);
          add(e.dv, at_key(key), w.keep[k] * w.weight[k], in.d_out, i, s.width);
        }
        const double delta = dot(e.out, i, in.d_out, i, s.width);
        for (int64_t key = 0; key < s.keys; ++key) {
          const auto k = static_cast<size_t>(key);
          const double slope = dot(in.d_out, i, in.v, at_key(key), s.width);
          const double d_score =
              scale_of(t) * w.weight[k] * (w.keep[k] * slope - delta) * w.slope[k];
          add(e.dq, i, d_score, in.k, at_key(key), s.width);
          add(e.dk, at_key(key), d_score, in.q, i, s.width);
        }
      }
    }
  }
  return e;
}

// An array of heads on the device: rows of `width + unaligned` elements, by head or by token.
template <typename T>
struct Layout {
  Layout(const Setting& t, bool of_keys)
      : shape(t.shape), keys(of_keys), pitch(t.shape.width + t.unaligned) {
    const int64_t heads = keys ? shape.key_heads : shape.heads;
    const int64_t tokens = keys ? shape.keys : shape.queries;
    head_step = t.by_token ? pitch : tokens * pitch;
    token_step = t.by_token ? heads * pitch : pitch;
    row_step = heads * tokens * pitch;
    elements = shape.rows * row_step;
  }
  template <typename Act>
  void each(const Act& act) const {  // element of the array, element on the device
    for (int64_t row = 0; row < shape.rows; ++row) {
      for (int64_t head = 0; head < (keys ? shape.key_heads : shape.heads); ++head) {
        for (int64_t token = 0; token < (keys ? shape.keys : shape.queries); ++token) {
          for (int d = 0; d < shape.width; ++d) {
            act(index_of(shape, keys, row, head, token) + static_cast<size_t>(d),
                static_cast<size_t>(row * row_step + head * head_step + token * token_step + d));
          }
        }
      }
    }
  }
  AttentionHeads<const T> place(DeviceMemory& memory, const std::vector<double>& values) const {
    std::vector<T> array(static_cast<size_t>(elements), T(std::nanf("")));
    each([&](size_t from, size_t to) { array[to] = T(static_cast<float>(values[from])); });
    return {memory.input(array), row_step, head_step, token_step};
  }
  template <typename U>
  AttentionHeads<U> room(DeviceMemory& memory) const {
    return {memory.output<U>(elements), row_step, head_step, token_step};
  }
  std::vector<double> read(const AttentionResult<T>& from) const {
    std::vector<double> values(static_cast<size_t>(
        shape.rows * (keys ? shape.key_heads * shape.keys : shape.heads * shape.queries) *
        shape.width));
    each([&](size_t to, size_t at) {
      values[to] = from.wide.data != nullptr
                       ? static_cast<double>(from.wide.data[at])
                       : static_cast<double>(static_cast<float>(from.narrow.data[at]));
    });
    return values;
  }
  AttentionResult<T> result(DeviceMemory& memory, bool wide) const {
    if (wide) return {{}, room<float>(memory)};
    return {room<T>(memory), {}};
  }
  AttentionShape shape;
  bool keys;
  int64_t pitch, head_step, token_step, row_step, elements;
};

AttentionRules rules_of(const Setting& t, const Inputs& in, DeviceMemory& memory) {
  AttentionRules rules;
  rules.scale = scale_of(t);
  rules.soft_cap = t.soft_cap;
  rules.causal = t.causal;
  rules.window_left = t.window_left;
  rules.window_right = t.window_right;
  if (t.alibi) rules.alibi_slopes = memory.input(in.slopes);
  if (t.shifted) {
    rules.query_position = memory.input(in.query_position);
    rules.key_position = memory.input(in.key_position);
  }
  if (t.padded) {
    rules.key_valid = memory.input(in.valid);
  }
  if (t.documents) {
    rules.query_document = memory.input(in.query_document);
    rules.key_document = memory.input(in.key_document);
  }
  rules.dropout_rate = t.dropout;
  rules.dropout_key = kDropoutKey;
  rules.dropout_heads = t.shape.heads + 2;
  rules.dropout_queries = t.shape.queries + 3;
  rules.dropout_keys = t.shape.keys + 4;
  rules.first_row = 1;
  rules.first_head = 2;
  rules.first_query = 3;
  rules.first_key = 4;
  return rules;
}

// Says where |actual - expected| > tolerance * max(1/4, max|expected|): what sums of terms of about
// 1 come to may be nothing.
std::string apart(const std::string& what, const std::vector<double>& actual,
                  const std::vector<double>& expected, double tolerance) {
  double largest = 0.25;
  for (const double value : expected) {
    if (!std::isinf(value)) largest = std::max(largest, std::abs(value));
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    if (actual[i] == expected[i] || std::abs(actual[i] - expected[i]) <= tolerance * largest) {
      continue;
    }
    return what + ": element " + std::to_string(i) + " of " + std::to_string(expected.size()) +
           " is " + std::to_string(actual[i]) + ", not " + std::to_string(expected[i]);
  }
  return "";
}

template <typename T>
std::string check_setting(const KernelSet& set, const Setting& t, double tolerance) {
  const TypedKernels<T>& kernels = set.typed<T>();
  const Inputs in = inputs_of<T>(t);
  const Expected e = expected_of(t, in);
  DeviceMemory memory;
  const AttentionRules rules = rules_of(t, in, memory);
  const Layout<T> of_queries(t, false), of_keys(t, true);
  const auto q = of_queries.place(memory, in.q), d_out = of_queries.place(memory, in.d_out);
  const auto k = of_keys.place(memory, in.k), v = of_keys.place(memory, in.v);
  const AttentionResult<T> out = of_queries.result(memory, t.wide);
  const int64_t sums = t.shape.rows * t.shape.heads * t.shape.queries;
  float *lse = memory.output<float>(sums), *delta = memory.output<float>(sums);
  void* scratch = memory.output<char>(attention_scratch_bytes(t.shape));
  kernels.attention_forward(t.shape, rules, q, k, v, out, lse, scratch, nullptr);
  std::string finding =
      first_of({apart(t.name + ": out", of_queries.read(out), e.out, tolerance),
                apart(t.name + ": lse", {lse, lse + sums}, e.lse, 1e-3 * tolerance + 1e-6)});
  if (!finding.empty()) return finding;

  // The true output, rounded: what the forward pass would hand on.
  const AttentionHeads<const T> saved = of_queries.place(memory, e.out);
  kernels.attention_delta(t.shape, saved, d_out, delta, nullptr);
  const AttentionResult<T> dq = of_queries.result(memory, t.wide);
  const AttentionResult<T> dk = of_keys.result(memory, t.wide), dv = of_keys.result(memory, t.wide);
  kernels.attention_backward(t.shape, rules, q, k, v, d_out, lse, delta, dq, dk, dv, scratch,
                             nullptr);
  return first_of({apart(t.name + ": dq", of_queries.read(dq), e.dq, 2 * tolerance),
                   apart(t.name + ": dk", of_keys.read(dk), e.dk, 2 * tolerance),
                   apart(t.name + ": dv", of_keys.read(dv), e.dv, 2 * tolerance),
                   memory.violation()});
}

AttentionShape shape_of(int64_t rows, int64_t heads, int64_t key_heads, int64_t queries,
                        int64_t keys, int width) {
  return {rows, heads, key_heads, queries, keys, width};
}

}  // namespace

std::string check_attention_plain(const KernelSet& set) {
  const Setting full{.name = "full", .shape = shape_of(1, 1, 1, 70, 140, 64)};
  const Setting causal{.name = "causal", .shape = shape_of(1, 1, 1, 133, 133, 64), .causal = true};
  return first_of({check_setting<bfloat16>(set, full, 1e-2),
                   check_setting<bfloat16>(set, causal, 1e-2),
                   check_setting<float>(set, causal, 1e-5)});
}

std::string check_attention_widths(const KernelSet& set) {
  for (const int width : {1, 20, 32, 80, 96, 128}) {
    Setting t{.name = "width " + std::to_string(width), .shape = shape_of(1, 1, 1, 67, 67, width)};
    t.causal = true;
    t.unaligned = width % 8 == 0 ? 0 : 1;
    const std::string finding =
        first_of({check_setting<float>(set, t, 1e-5), check_setting<bfloat16>(set, t, 1e-2),
                  check_setting<float16>(set, t, 2e-3)});
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_attention_rules(const KernelSet& set) {
  std::vector<Setting> settings;
  const AttentionShape shape = shape_of(2, 2, 1, 70, 133, 32);
  settings.push_back({.name = "padded", .shape = shape, .padded = true, .by_token = true});
  settings.push_back({.name = "window", .shape = shape, .window_left = 40, .window_right = 3});
  settings.push_back({.name = "window 0", .shape = shape, .causal = true, .window_left = 0});
  settings.push_back(
      {.name = "documents", .shape = shape, .causal = true, .documents = true, .shifted = true});
  settings.push_back(
      {.name = "cap", .shape = shape, .soft_cap = 1.5, .alibi = true, .shifted = true});
  settings.push_back({.name = "dropout", .shape = shape, .causal = true, .dropout = 0.25});
  settings.push_back({.name = "wide", .shape = shape, .dropout = 0.5, .wide = true});
  settings.push_back({.name = "no keys", .shape = shape_of(1, 2, 1, 5, 0, 32)});
  settings.push_back({.name = "no queries", .shape = shape_of(1, 2, 1, 0, 5, 32)});
  settings.push_back({.name = "one", .shape = shape_of(1, 1, 1, 1, 1, 64), .causal = true});
  for (const Setting& t : settings) {
    const bool in_floats = t.documents || t.dropout > 0 || t.soft_cap > 0 || t.shape.keys <= 5;
    const std::string finding =
        first_of({check_setting<bfloat16>(set, t, 1e-2),
                  in_floats ? check_setting<float>(set, t, 1e-5) : std::string()});
    if (!finding.empty()) return finding;
  }
  return "";
}

std::string check_attention_merge(const KernelSet& set) {
  constexpr int64_t kRows = 11, kWidth = 37;
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  Bench bench(1);
  DeviceMemory memory;
  const std::vector<float> a = random_values(kRows * kWidth, 71),
                           b = random_values(kRows * kWidth, 72);
  std::vector<float> lse_a = random_values(kRows, 73, 3), lse_b = random_values(kRows, 74, 3);
  lse_a[1] = lse_b[2] = lse_a[3] = lse_b[3] = kNothing;
  float *into = memory.in_out(a), *lse = memory.in_out(lse_a);
  set.attention_merge(into, lse, memory.input(b), memory.input(lse_b), kRows, kWidth, nullptr);
  const auto tensor = [&](const Shape& shape, const std::vector<float>& values) {
    return Tensor::from<float>(*bench.allocator, shape, values);
  };
  attention::Partial first{tensor({1, 1, kRows, kWidth}, a), tensor({1, 1, kRows}, lse_a)};
  const attention::Partial second{tensor({1, 1, kRows, kWidth}, b), tensor({1, 1, kRows}, lse_b)};
  attention::merge(bench.context, first, second);
  const std::vector<float> out = first.output.to_vector<float>();
  const std::vector<float> sums = first.log_sum_exp.to_vector<float>();
  return first_of({differs("merged", into, {out.begin(), out.end()}, 2e-6),
                   differs("its lse", lse, {sums.begin(), sums.end()}, 2e-6), memory.violation()});
}

}  // namespace weft::cuda
