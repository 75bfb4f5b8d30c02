// What attention means, summed up in float64 over arrays that are contiguous by [row, head, token,
// feature]; the cases of its kernels compare with it.
//
// Thread safety: values.
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "kernels/cuda/attention.h"
#include "tests/kernels/cuda/comparison.h"

namespace weft::cuda {

inline bool operator==(const AttentionShape& a, const AttentionShape& b) {
  const auto all = [](const AttentionShape& s) {
    return std::tie(s.rows, s.heads, s.key_heads, s.queries, s.keys, s.width, s.value_width);
  };
  return all(a) == all(b);
}

// What a kernel is tried with.
struct Setting {
  bool operator==(const Setting&) const = default;
  std::string name;
  AttentionShape shape;
  bool causal = false;
  int64_t window_left = -1, window_right = -1;
  double soft_cap = 0;
  bool alibi = false, padded = false, documents = false, shifted = false, by_token = false;
  double dropout = 0;
  bool wide = false;       // fp32 results
  int64_t unaligned = 0;   // elements added to each row
  bool scattered = false;  // dropout by tokens that do not lie next to each other
  bool sinks = false;
  bool sm90 = false;                 // by the kernels of sm_90a
  std::string mask = "", bias = "";  // "whole", "row", "head", "shared": which dims it has
  int64_t reach = -1;                // of a table by distance; -1: none
  int64_t groups = 1;                // of rows that have such a table each
};

struct AttentionInputs {
  std::vector<double> q, k, v, d_out, bias, by_distance, sinks;
  std::vector<int64_t> query_position, key_position, query_document, key_document;
  std::vector<int64_t> query_index, key_index;  // of dropout
  std::vector<uint8_t> valid, mask;
  std::vector<float> slopes;
};
struct AttentionResults {
  std::vector<double> out, lse, dq, dk, dv, d_bias, d_by_distance, d_sinks;
};

// The element of a table of scores that has the dims which `dims` names.
struct ScoreDims {
  ScoreDims(const AttentionShape& shape, const std::string& dims);
  int64_t rows, heads, queries, keys;
  int64_t elements() const { return rows * heads * queries * keys; }
  size_t at(int64_t row, int64_t head, int64_t query, int64_t key) const;
};

enum class Side { kQueries, kKeys, kValues, kOutputs };
int64_t width_of(const AttentionShape& shape, Side side);
size_t index_of(const AttentionShape& shape, Side side, int64_t row, int64_t head, int64_t token);

constexpr RandomKey kDropoutKey{.seed = 0x1234567890ABCDEF, .stream = 77};
double scale_of(const Setting& t);

// rounded: to what T holds.
AttentionInputs attention_inputs(const Setting& t, double (*rounded)(double));
AttentionResults attention_definition(const Setting& t, const AttentionInputs& in);

}  // namespace weft::cuda
