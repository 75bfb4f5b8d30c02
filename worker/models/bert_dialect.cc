#include "worker/models/bert_dialect.h"

#include <array>

namespace weft::bert {
namespace {

constexpr Keys kBertKeys{.hidden = "hidden_size",
                         .layers = "num_hidden_layers",
                         .heads = "num_attention_heads",
                         .inner = "intermediate_size",
                         .activation = "hidden_act",
                         .dropout = "hidden_dropout_prob",
                         .attention_dropout = "attention_probs_dropout_prob"};
constexpr BlockNames kBertBlock{.query = "attention.self.query",
                                .key = "attention.self.key",
                                .value = "attention.self.value",
                                .attention_out = "attention.output.dense",
                                .norm1 = "attention.output.LayerNorm",
                                .inner = "intermediate.dense",
                                .outer = "output.dense",
                                .norm2 = "output.LayerNorm"};

// Defaults as transformers' configuration classes have them.
constexpr std::array kDialects{
    Dialect{.name = "bert",
            .classes = "Bert",
            .keys = kBertKeys,
            .blocks = "bert.encoder.layer.",
            .block = kBertBlock,
            .pooler = "bert.pooler.dense",
            .sequence_classes = "classifier",
            .choice_pooler = "bert.pooler.dense",
            .masked = "cls.predictions.transform.dense",
            .masked_norm = "cls.predictions.transform.LayerNorm",
            .vocabulary_bias = "cls.predictions.bias",
            .token_head = "cls.predictions.decoder.weight"},
    Dialect{.name = "roberta",
            .classes = "Roberta",
            .keys = kBertKeys,
            .blocks = "roberta.encoder.layer.",
            .block = kBertBlock,
            .positions_skip_padding = true,
            .vocabulary = 50265,
            .bos = 0,
            .eos = 2,
            .pad = 1,
            .pooler = "classifier.dense",
            .pooler_dropout = true,
            .sequence_classes = "classifier.out_proj",
            .choice_pooler = "roberta.pooler.dense",
            .choice_dropout = false,
            .masked = "lm_head.dense",
            .masked_norm = "lm_head.layer_norm",
            .vocabulary_bias = "lm_head.bias",
            .token_head = "lm_head.decoder.weight",
            .masked_gelu = true},
    Dialect{.name = "distilbert",
            .classes = "DistilBert",
            .keys = {.hidden = "dim",
                     .layers = "n_layers",
                     .heads = "n_heads",
                     .inner = "hidden_dim",
                     .activation = "activation",
                     .dropout = "dropout",
                     .attention_dropout = "attention_dropout"},
            .blocks = "distilbert.transformer.layer.",
            .block = {.query = "attention.q_lin",
                      .key = "attention.k_lin",
                      .value = "attention.v_lin",
                      .attention_out = "attention.out_lin",
                      .norm1 = "sa_layer_norm",
                      .inner = "ffn.lin1",
                      .outer = "ffn.lin2",
                      .norm2 = "output_layer_norm"},
            .token_types = false,
            .drops_attention = false,
            .distilled = true,
            .layers = 6,
            .pooler = "pre_classifier",
            .pooler_activation = ops::Activation::kRelu,
            .sequence_classes = "classifier",
            .choice_pooler = "pre_classifier",
            .masked = "vocab_transform",
            .masked_norm = "vocab_layer_norm",
            .vocabulary_bias = "vocab_projector.bias",
            .token_head = "vocab_projector.weight"},
};

}  // namespace

std::span<const Dialect> dialects() { return kDialects; }

}  // namespace weft::bert
