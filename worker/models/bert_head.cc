#include "worker/models/bert_head.h"

namespace weft::bert {
namespace {

Head sequence_head(const Dialect& dialect, const Config& config, int64_t labels) {
  const double dropout = config.classifier_dropout.value_or(config.dropout);
  const HeadLayer pooler{.name = std::string(dialect.pooler),
                         .out = config.hidden,
                         .dropout = dialect.pooler_dropout ? dropout : 0,
                         .activation = dialect.pooler_activation};
  const HeadLayer classes{
      .name = std::string(dialect.sequence_classes), .out = labels, .dropout = dropout};
  return {.pooled = PooledToken::kFirst, .layers = {pooler, classes}};
}

Head choice_head(const Dialect& dialect, const Config& config) {
  const double dropout =
      dialect.choice_dropout ? config.classifier_dropout.value_or(config.dropout) : config.dropout;
  const HeadLayer pooler{.name = std::string(dialect.choice_pooler),
                         .out = config.hidden,
                         .activation = dialect.pooler_activation};
  const HeadLayer score{.name = "classifier", .out = 1, .dropout = dropout};
  return {.pooled = PooledToken::kFirst, .layers = {pooler, score}};
}

Head token_head(const Dialect& dialect, const Config& config, int64_t labels) {
  const double dropout =
      dialect.distilled ? config.dropout : config.classifier_dropout.value_or(config.dropout);
  return {.layers = {{.name = "classifier", .out = labels, .dropout = dropout}}};
}

Head span_head(const Config& config) {
  return {.layers = {{.name = "qa_outputs", .out = kSpanEnds, .dropout = config.answer_dropout}}};
}

Head masked_head(const Dialect& dialect, const Config& config) {
  const HeadLayer layer{
      .name = std::string(dialect.masked),
      .out = config.hidden,
      .activation = dialect.masked_gelu ? ops::Activation::kGeluErf : config.activation,
      .norm = std::string(dialect.masked_norm)};
  return {.layers = {layer},
          .epsilon = config.epsilon,
          .vocabulary_bias = std::string(dialect.vocabulary_bias)};
}

}  // namespace

Head head(const Dialect& dialect, const Config& config, HeadKind kind, int64_t labels) {
  if (kind == HeadKind::kSequence) return sequence_head(dialect, config, labels);
  if (kind == HeadKind::kToken) return token_head(dialect, config, labels);
  if (kind == HeadKind::kChoice) return choice_head(dialect, config);
  if (kind == HeadKind::kSpan) return span_head(config);
  return masked_head(dialect, config);
}

}  // namespace weft::bert
