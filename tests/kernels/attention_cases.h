// What attention is tried with, and its plain composition of ops, the oracle.
//
// Thread safety: values.
#pragma once

#include <functional>
#include <iosfwd>
#include <span>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"

namespace weft::attention {

struct Case {
  std::string name;
  int64_t rows = 2, heads = 3, key_heads = 3, queries = 5, keys = 5, features = 4;
  int64_t value_features = 0;  // 0: as features
  bool causal = false;
  int64_t left = -1, right = -1;  // window
  std::string valid = "";         // "left", "right", "none": which keys of the rows are padding
  int64_t document = 0;           // tokens of one; 0: no documents
  int64_t query_offset = 0;       // positions of the queries start here
  double dropout = 0, soft_cap = 0, scale = 0;  // scale 0: 1 / sqrt(features)
  bool alibi = false, sinks = false;
  int64_t reach = -1;                // of a table by distance; -1: none
  int64_t restart = 0;               // positions start anew after so many tokens; 0: they do not
  std::string mask = "", bias = "";  // "whole", "row", "head", "shared": which dims it has

  int64_t values() const { return value_features == 0 ? features : value_features; }
};

// Small ones of every feature, and some of several tiles.
std::vector<Case> cases();
// Rules and extents put together at random, the same every time.
std::vector<Case> drawn_cases();
void PrintTo(const Case& c, std::ostream* out);

// q, k, v, then bias, that by distance and sinks where the case has them; leaves.
struct Inputs {
  std::vector<Tensor> all;
  const Tensor& q() const { return all[0]; }
  const Tensor& k() const { return all[1]; }
  const Tensor& v() const { return all[2]; }
};
// Rounded to bf16 where `rounded`, so that every dtype starts from the same values.
Inputs inputs_of(Context& cx, const Case& c, DType dtype, bool rounded);

// All but biases and sinks, which are taken from `inputs`.
Parameters parameters_of(Context& cx, const Case& c, std::span<const Tensor> inputs);

// What dropout multiplies the weights by, [B, N, Tq, Tk].
Tensor kept_weights(Context& cx, const Shape& shape, const WeightDropout& dropout, DType dtype);

// int64 [b, i], by a function of both.
Tensor counted(Context& cx, Shape shape, const std::function<int64_t(int64_t, int64_t)>& f);

// The bias [B, N, Tq, Tk] that a table by distance [N, 2 R + 1] stands for.
Tensor bias_by_distance(Context& cx, const Tensor& table, const Visibility& positions, int64_t rows,
                        int64_t queries, int64_t keys);

// softmax(scores + what hides) * keep, times v: with ops only.
Tensor composition(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v,
                   const Parameters& p);

}  // namespace weft::attention
