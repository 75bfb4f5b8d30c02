// The families that compute as BERT does, and what parts them: the names of their parameters and of
// their configuration's keys, their heads, and what absent keys mean.
//
// Thread safety: constants.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/ops/ops.h"

namespace weft::bert {

// Of a linear map or norm within a block, without ".weight" and ".bias".
struct BlockNames {
  std::string_view query, key, value, attention_out, norm1, inner, outer, norm2;
};

// Of the configuration, where they are not named alike.
struct Keys {
  const char *hidden, *layers, *heads, *inner, *activation, *dropout, *attention_dropout;
};

struct Dialect {
  std::string_view name;     // model_type; with a dot the prefix of the trunk's parameters
  std::string_view classes;  // transformers': <classes>ForSequenceClassification
  Keys keys;
  std::string_view blocks;  // before a block's number
  BlockNames block;
  bool token_types = true;      // there is a table of them
  bool drops_attention = true;  // what attention adds to a block has the blocks' dropout
  // Norms' epsilon is no key, and classes of sequences have a dropout of their own.
  bool distilled = false;
  // Positions count the tokens that are not pad_token_id, from pad_token_id + 1 on.
  bool positions_skip_padding = false;
  // What absent keys mean.
  int64_t vocabulary = 30522, layers = 12;
  int64_t bos = -1, eos = -1, pad = 0;  // -1: none
  // Heads: of a sequence's classes a layer on its first token and that of the classes, of a masked
  // token's a layer with its norm.
  std::string_view pooler;
  ops::Activation pooler_activation = ops::Activation::kTanh;
  bool pooler_dropout = false;  // also before the pooler
  std::string_view sequence_classes;
  std::string_view choice_pooler;  // of a choice, whose number is the layer classifier's
  bool choice_dropout = true;      // classes' dropout, where they have one; else the blocks'
  std::string_view masked, masked_norm, vocabulary_bias;
  std::string_view token_head;  // of files: the table again, which is tied to it
  bool masked_gelu = false;     // whatever the blocks' activation is
};

std::span<const Dialect> dialects();

}  // namespace weft::bert
