// The families that compute as Llama does, and what parts them: biases, norms of heads, windows,
// and what absent keys of a configuration mean.
//
// Thread safety: constants.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace weft::llama {

struct Dialect {
  enum class Biases : uint8_t {
    kNone,
    kAsked,          // attention_bias: of queries, keys, values and of their output
    kQueryKeyValue,  // always, and none of the output
  };
  enum class Windows : uint8_t {
    kNone,
    kAll,     // sliding_window: of every layer
    kByLayer  // use_sliding_window; of the layers that layer_types or max_window_layers say
  };

  std::string_view name;     // model_type
  std::string_view classes;  // transformers': <classes>ForCausalLM
  Biases biases = Biases::kNone;
  bool head_norms = false;  // queries and keys have an RMS norm over each head's features
  Windows windows = Windows::kNone;
  // What absent keys mean.
  int64_t vocabulary = 32000, positions = 2048, inner = 11008;
  std::optional<int64_t> key_heads;      // none: num_attention_heads
  std::optional<int64_t> head_features;  // none: hidden_size / num_attention_heads
  int64_t bos = 1, eos = 2;              // -1: none
};

std::span<const Dialect> dialects();

}  // namespace weft::llama
