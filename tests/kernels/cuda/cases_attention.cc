// Fused attention against the sums of its definition in float64, over widths, rules and types.
#include "kernels/cuda/attention.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <utility>

#include "kernels/attention/attention.h"
#include "tests/kernels/cuda/attention_definition.h"

namespace weft::cuda {
namespace {

template <typename T>
double rounded_to(double value) {
  return static_cast<double>(static_cast<float>(T(static_cast<float>(value))));
}

// An array of heads on the device: rows of `width + unaligned` elements, by head or by token.
template <typename T>
struct Layout {
  Layout(const Setting& t, Side of)
      : shape(t.shape),
        side(of),
        heads(of == Side::kKeys || of == Side::kValues ? shape.key_heads : shape.heads),
        tokens(of == Side::kKeys || of == Side::kValues ? shape.keys : shape.queries),
        width(width_of(shape, of)),
        pitch(width + t.unaligned),
        head_step(t.by_token ? pitch : tokens * pitch),
        token_step(t.by_token ? heads * pitch : pitch),
        row_step(heads * tokens * pitch) {}
  int64_t elements() const { return shape.rows * row_step; }
  template <typename Act>
  void each(const Act& act) const {  // element of the array, element on the device
    for (int64_t i = 0; i < shape.rows * heads * tokens * width; ++i) {
      const int64_t feature = i % width, token = i / width % tokens;
      const int64_t head = i / width / tokens % heads, row = i / width / tokens / heads;
      act(static_cast<size_t>(i),
          static_cast<size_t>(row * row_step + head * head_step + token * token_step + feature));
    }
  }
  AttentionHeads<const T> place(DeviceMemory& memory, const std::vector<double>& values) const {
    std::vector<T> array(static_cast<size_t>(elements()), T(std::nanf("")));
    each([&](size_t from, size_t to) { array[to] = T(static_cast<float>(values[from])); });
    return {memory.input(array), row_step, head_step, token_step};
  }
  template <typename U>
  AttentionHeads<U> room(DeviceMemory& memory) const {
    return {memory.output<U>(elements()), row_step, head_step, token_step};
  }
  std::vector<double> read(const AttentionResult<T>& from) const {
    std::vector<double> values(static_cast<size_t>(shape.rows * heads * tokens * width));
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
  const AttentionShape shape;
  const Side side;
  const int64_t heads, tokens, width, pitch, head_step, token_step, row_step;
};

template <typename T>
std::vector<T> as_elements(const std::vector<double>& values) {
  std::vector<T> elements;
  for (const double value : values) elements.push_back(T(static_cast<float>(value)));
  return elements;
}
template <typename T>
std::vector<double> as_doubles(const T* elements, size_t count) {
  std::vector<double> values;
  for (size_t i = 0; i < count; ++i) {
    values.push_back(static_cast<double>(static_cast<float>(elements[i])));
  }
  return values;
}

template <typename T>
ScoreTable<T> table_of(const void* data, const AttentionShape& shape, const std::string& dims) {
  const ScoreDims d(shape, dims);
  return {static_cast<const T*>(data), d.rows == 1 ? 0 : d.heads * d.queries * d.keys,
          d.heads == 1 ? 0 : d.queries * d.keys, d.keys, 1};
}

template <typename T>
AttentionRules rules_of(const Setting& t, const AttentionInputs& in, DeviceMemory& memory) {
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
  rules.dropout_key = DeviceKey({.seed = 1, .stream = kDropoutKey.stream},
                                memory.input(std::vector<uint64_t>{kDropoutKey.seed}));
  rules.dropout_heads = t.shape.heads + 2;
  rules.dropout_queries = t.shape.queries + 3;
  rules.dropout_keys = t.shape.keys + 4;
  if (t.scattered) {
    rules.query_index = memory.input(in.query_index);
    rules.key_index = memory.input(in.key_index);
  }
  if (!t.mask.empty()) rules.mask = table_of<uint8_t>(memory.input(in.mask), t.shape, t.mask);
  if (!t.bias.empty()) {
    rules.bias = table_of<void>(memory.input(as_elements<T>(in.bias)), t.shape, t.bias);
  }
  if (t.reach >= 0) {
    rules.distance_bias = memory.input(as_elements<T>(in.by_distance));
    rules.distance_reach = t.reach;
    if (t.groups > 1) rules.distance_rows = t.shape.rows / t.groups;
  }
  if (t.sinks) rules.sinks = memory.input(as_elements<T>(in.sinks));
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

struct Definition {
  AttentionInputs inputs;
  AttentionResults results;
};
// Computed once, for all schedules and mutants.
template <typename T>
const Definition& definition_of(const Setting& t) {
  static std::deque<std::pair<Setting, Definition>> known;
  for (const auto& [setting, definition] : known) {
    if (setting == t) return definition;
  }
  AttentionInputs inputs = attention_inputs(t, rounded_to<T>);
  AttentionResults results = attention_definition(t, inputs);
  return known.emplace_back(t, Definition{std::move(inputs), std::move(results)}).second;
}

template <typename T>
std::string check_setting(const KernelSet& set, const Setting& t, double tolerance) {
  const TypedKernels<T>& kernels = set.typed<T>();
  const auto& [in, e] = definition_of<T>(t);
  DeviceMemory memory;
  const AttentionRules rules = rules_of<T>(t, in, memory);
  const Layout<T> queries(t, Side::kQueries), keys(t, Side::kKeys);
  const Layout<T> values(t, Side::kValues), outputs(t, Side::kOutputs);
  const auto q = queries.place(memory, in.q), d_out = outputs.place(memory, in.d_out);
  const auto k = keys.place(memory, in.k), v = values.place(memory, in.v);
  const AttentionResult<T> out = outputs.result(memory, t.wide);
  const int64_t sums = t.shape.rows * t.shape.heads * t.shape.queries;
  float *lse = memory.output<float>(sums), *delta = memory.output<float>(sums);
  void* scratch = memory.output<char>(attention_scratch_bytes(t.shape));
  if (!t.sm90) {
    kernels.attention_forward(t.shape, rules, q, k, v, out, lse, scratch, nullptr);
  } else if (!kernels.attention_forward_sm90(t.shape, rules, q, k, v, out, lse, scratch, nullptr)) {
    return t.name + ": not taken";
  }
  std::string finding =
      first_of({apart(t.name + ": out", outputs.read(out), e.out, tolerance),
                apart(t.name + ": lse", {lse, lse + sums}, e.lse, 1e-3 * tolerance + 1e-6)});
  if (!finding.empty()) return finding;

  // The true output, rounded: what the forward pass would hand on.
  const AttentionHeads<const T> saved = outputs.place(memory, e.out);
  kernels.attention_delta(t.shape, saved, d_out, delta, nullptr);
  const AttentionResult<T> dq = queries.result(memory, t.wide);
  const AttentionResult<T> dk = keys.result(memory, t.wide), dv = values.result(memory, t.wide);
  if (!t.sm90) {
    kernels.attention_backward(t.shape, rules, q, k, v, d_out, lse, delta, dq, dk, dv, scratch,
                               nullptr);
  } else if (!kernels.attention_backward_sm90(t.shape, rules, q, k, v, d_out, lse, delta, dq, dk,
                                              dv, scratch, nullptr)) {
    return t.name + ": its gradients are not taken";
  }
  T* d_bias = memory.output<T>(static_cast<int64_t>(in.bias.size()));
  if (!t.bias.empty()) {
    const ScoreDims dims(t.shape, t.bias);
    kernels.attention_bias_gradient(t.shape, rules, q, k, v, d_out, lse, delta,
                                    {dims.rows == 1, dims.heads == 1}, d_bias, scratch, nullptr);
  }
  float* d_table = memory.output<float>(static_cast<int64_t>(in.by_distance.size()));
  if (t.reach >= 0) {
    void* room = memory.output<char>(attention_distance_scratch_bytes(t.shape, rules));
    kernels.attention_distance_gradient(t.shape, rules, q, k, v, d_out, lse, delta, d_table, room,
                                        nullptr);
  }
  T* d_sinks = memory.output<T>(static_cast<int64_t>(in.sinks.size()));
  if (t.sinks) kernels.attention_sinks_gradient(t.shape, rules, lse, delta, d_sinks, nullptr);
  const std::vector<double> of_bias = as_doubles(d_bias, in.bias.size());
  const std::vector<double> of_table = as_doubles(d_table, in.by_distance.size());
  const std::vector<double> of_sinks = as_doubles(d_sinks, in.sinks.size());
  return first_of({apart(t.name + ": dq", queries.read(dq), e.dq, 2 * tolerance),
                   apart(t.name + ": dk", keys.read(dk), e.dk, 2 * tolerance),
                   apart(t.name + ": dv", values.read(dv), e.dv, 2 * tolerance),
                   apart(t.name + ": d_bias", of_bias, e.d_bias, 2 * tolerance),
                   apart(t.name + ": d_table", of_table, e.d_by_distance, 2 * tolerance),
                   apart(t.name + ": d_sinks", of_sinks, e.d_sinks, 2 * tolerance),
                   memory.violation()});
}

AttentionShape shape_of(int64_t rows, int64_t heads, int64_t key_heads, int64_t queries,
                        int64_t keys, int width, int value_width = 0) {
  return {rows, heads, key_heads, queries, keys, width, value_width == 0 ? width : value_width};
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
  settings.push_back(settings.back());
  settings.back().name = "window of positions";
  settings.back().shifted = true;
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

// What a score table, sinks, values of another width and scattered tokens add.
std::string check_attention_tables(const KernelSet& set) {
  std::vector<Setting> settings;
  const AttentionShape shape = shape_of(2, 2, 1, 70, 133, 32);
  for (const char* dims : {"whole", "row", "head", "shared"}) {
    const std::string of = std::string(" ") + dims;
    settings.push_back({.name = "bias" + of, .shape = shape, .causal = true, .bias = dims});
    settings.push_back({.name = "mask" + of, .shape = shape, .by_token = true, .mask = dims});
  }
  settings.push_back({.name = "sinks", .shape = shape, .padded = true, .sinks = true});
  settings.push_back({.name = "narrow values", .shape = shape_of(1, 2, 1, 67, 70, 64, 24)});
  settings.push_back({.name = "wide values", .shape = shape_of(1, 2, 1, 67, 70, 20, 64)});
  settings.back().unaligned = 1;
  settings.push_back({.name = "scattered", .shape = shape, .dropout = 0.4, .scattered = true});
  Setting all{.name = "all", .shape = shape_of(2, 2, 1, 67, 70, 16, 40), .causal = true};
  all.soft_cap = 2;
  all.alibi = all.padded = all.shifted = all.scattered = all.sinks = true;
  all.dropout = 0.2;
  all.mask = "head";
  all.bias = "row";
  settings.push_back(all);
  for (const Setting& t : settings) {
    const bool others = t.sinks || t.dropout > 0 || t.bias == "shared";
    const std::string finding =
        first_of({check_setting<bfloat16>(set, t, 1e-2),
                  others ? check_setting<float>(set, t, 1e-5) : std::string(),
                  others ? check_setting<float16>(set, t, 2e-3) : std::string()});
    if (!finding.empty()) return finding;
  }
  return "";
}

// A table by distance: within and beyond it, by index and by positions with and without gaps.
std::string check_attention_distances(const KernelSet& set) {
  std::vector<Setting> settings;
  const AttentionShape shape = shape_of(2, 2, 1, 70, 133, 32);
  settings.push_back({.name = "near", .shape = shape, .reach = 3});
  settings.push_back({.name = "far", .shape = shape, .soft_cap = 1.5, .wide = true, .reach = 150});
  settings.push_back({.name = "nearest", .shape = shape, .causal = true, .reach = 1});
  settings.push_back(
      {.name = "gaps", .shape = shape, .padded = true, .shifted = true, .reach = 40});
  settings.push_back(
      {.name = "groups", .shape = shape_of(4, 2, 1, 70, 70, 16), .causal = true, .reach = 40});
  settings.back().groups = 2;
  settings.push_back({.name = "no keys", .shape = shape_of(1, 2, 1, 5, 0, 32), .reach = 2});
  settings.push_back({.name = "no queries", .shape = shape_of(1, 2, 1, 0, 5, 32), .reach = 2});
  Setting all{
      .name = "all", .shape = shape_of(2, 2, 1, 67, 70, 16, 40), .causal = true, .reach = 9};
  all.soft_cap = 2;
  all.alibi = all.padded = all.shifted = all.scattered = all.sinks = true;
  all.dropout = 0.2;
  all.mask = "head";
  all.bias = "row";
  settings.push_back(all);
  for (const Setting& t : settings) {
    const bool others = t.sinks || t.reach == 150;
    const std::string finding =
        first_of({check_setting<bfloat16>(set, t, 1e-2),
                  others ? check_setting<float>(set, t, 1e-5) : std::string(),
                  others ? check_setting<float16>(set, t, 2e-3) : std::string()});
    if (!finding.empty()) return finding;
  }
  return "";
}

// The kernels of sm_90a: several tiles of keys through the stages, all that they take, and what
// they leave to the others.
std::string check_attention_sm90(const KernelSet& set) {
  std::vector<Setting> settings;
  const AttentionShape shape = shape_of(2, 1, 1, 133, 330, 64);
  settings.push_back({.name = "full", .shape = shape_of(1, 1, 1, 70, 650, 64)});
  settings.push_back({.name = "causal", .shape = shape_of(1, 2, 2, 300, 300, 64), .causal = true});
  for (const int width : {24, 80, 128}) {
    settings.push_back({.name = "width " + std::to_string(width),
                        .shape = shape_of(1, 2, 1, 133, 260, width),
                        .by_token = true});
  }
  settings.push_back({.name = "values", .shape = shape_of(1, 2, 1, 40, 140, 64, 32)});
  settings.push_back({.name = "padded", .shape = shape, .padded = true, .wide = true});
  settings.push_back({.name = "window", .shape = shape, .window_left = 40, .window_right = 3});
  settings.push_back({.name = "band", .shape = shape_of(1, 2, 1, 389, 389, 64), .causal = true});
  settings.back().window_left = 70;
  settings.push_back({.name = "many", .shape = shape_of(1, 9, 3, 260, 150, 64), .causal = true});
  settings.push_back(
      {.name = "many wide", .shape = shape_of(1, 5, 1, 260, 150, 128), .causal = true});
  settings.push_back({.name = "more queries", .shape = shape_of(1, 3, 1, 270, 40, 64)});
  settings.back().causal = settings.back().sinks = true;
  for (const auto& [queries, keys] : {std::pair{400, 20}, {20, 400}}) {
    settings.push_back({.name = "unseen", .shape = shape_of(1, 6, 3, queries, keys, 64)});
    settings.back().window_left = settings.back().window_right = 5;
  }
  settings.push_back(
      {.name = "documents", .shape = shape, .causal = true, .documents = true, .shifted = true});
  settings.push_back(
      {.name = "mask", .shape = shape_of(1, 2, 1, 133, 330, 64), .sinks = true, .mask = "whole"});
  settings.push_back({.name = "one", .shape = shape_of(1, 1, 1, 1, 1, 64), .causal = true});
  for (Setting& t : settings) {
    t.sm90 = true;
    std::string finding = check_setting<bfloat16>(set, t, 1e-2);
    if (finding.empty() && t.causal) finding = check_setting<float16>(set, t, 2e-3);
    if (!finding.empty()) return finding;
  }
  Setting left{.name = "left", .shape = shape_of(1, 1, 1, 8, 8, 64), .sm90 = true};
  const std::string refusal = left.name + ": not taken";
  Setting biased = left, by_distance = left, dropping = left, unaligned = left;
  biased.bias = "whole";
  by_distance.reach = 3;
  dropping.dropout = 0.5;
  unaligned.unaligned = 1;
  for (const Setting& t : {biased, by_distance, dropping, unaligned}) {
    const std::string finding = check_setting<bfloat16>(set, t, 1e-2);
    if (finding != refusal) return "taken, though it cannot be: " + finding;
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
