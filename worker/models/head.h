// What a task puts on a trunk, as data: a family says which layers its heads have by the names that
// transformers gives them, a task computes them.
//
// Thread safety: values and pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/ops/ops.h"
#include "worker/models/parameter.h"

namespace weft {

struct ModelConfig;

enum class HeadKind : uint8_t {
  kSequence,  // one of so many classes for a row
  kToken,     // for each token
  kChoice,    // a number for a row, of which the largest of a question's rows is its choice
  kSpan,      // two numbers for each token: that an answer begins there, and that it ends there
  kImage,     // one of so many classes for an image
  kMasked,    // the vocabulary for each token: the table of tokens, turned round
  kPermuted,  // the same for each token that is predicted in an order of its own
};

inline constexpr std::array kHeadKinds{HeadKind::kSequence, HeadKind::kToken, HeadKind::kChoice,
                                       HeadKind::kSpan,     HeadKind::kImage, HeadKind::kMasked,
                                       HeadKind::kPermuted};

inline constexpr int64_t kSpanEnds = 2;  // an answer's beginning and end

// That of a task by its type's name; nothing for a causal_lm and a seq2seq, whose head is the
// trunk's, and for what is no type.
std::optional<HeadKind> head_kind(std::string_view task_type);

// Which tokens' hidden states the layers see. kEnd: a row's last token, whatever it is; kLast: its
// last one but pad_token_id.
enum class PooledToken : uint8_t { kEvery, kFirst, kLast, kEnd };

// norm(activation(dropout(x) weight^T + bias)).
struct HeadLayer {
  std::string name;  // in model.safetensors, without ".weight" and ".bias"
  int64_t out = 0;
  bool bias = true;
  double dropout = 0;
  std::optional<ops::Activation> activation;
  std::string norm;  // of a layer norm behind it; empty: there is none
};

struct Head {
  PooledToken pooled = PooledToken::kEvery;
  std::vector<HeadLayer> layers;  // but of kMasked, kPermuted: the last gives the classes
  double epsilon = 0;             // of the norms
  // kMasked, kPermuted: of what is added to the product with the table of tokens; empty: nothing
  // is.
  std::string vocabulary_bias;
};

// That of decoders: classes of the last real token, by a layer without bias.
std::optional<Head> decoder_head(HeadKind kind, int64_t labels);

// The head's parameters, layer by layer as weight, bias, norm's weight and bias; behind them the
// vocabulary's bias, cut as the table's rows are. `task`: before each name, with a dot; empty: the
// names are those in model.safetensors.
std::vector<ParameterInfo> head_plan(const Head& head, const ModelConfig& config,
                                     const std::string& task, int tensor_size, int tensor_index);

// Whether a parameter of the head, by its name in model.safetensors, belongs to the layer that
// gives the classes: what it learned is of no use for others.
bool gives_classes(const Head& head, const std::string& file_name);

}  // namespace weft
