// Writing a text for a text that is read (Sutskever et al. 2014) or a recording that is heard
// (Radford et al. 2022), by an encoder-decoder: each token of the target is predicted from the
// source and from those before it.
#include <memory>
#include <string>

#include "worker/tasks/predicted_tokens.h"
#include "worker/tasks/tasks.h"
#include "worker/tasks/token_prediction.h"

namespace weft {
namespace {

class Seq2Seq final : public TokenPrediction {
 public:
  Seq2Seq(Rank& rank, const ModelConfig& config, std::string_view type, TaskOptions options)
      : TokenPrediction(rank, config, std::move(options)),
        type_(type),
        start_(config.decoder_start_token_id),
        padding_(config.pad_token_id.value_or(config.decoder_start_token_id)),
        target_rules_(rules_) {
    target_rules_.attention = config.other_attention;
  }
  std::string_view type() const override { return type_; }

  int64_t label_count(const TaskRows& rows) const override { return labels_that_count(rows); }

  TaskBatch assemble(const TaskRows& rows, Part part) const override {
    const TaskRows targets = read_targets(rows, part);
    TaskBatch batch;
    batch.tokens = assemble_tokens(rank_, target_rules_, targets, {0, part.length});
    batch.tokens.rows = rows.rows;
    batch.tokens.first_row = part.start;
    batch.tokens.source =
        std::make_shared<const TokenBatch>(assemble_tokens(rank_, rules_, rows, part));
    batch.labels =
        Tensor::from<int64_t>(*rank_.allocator, batch.tokens.ids.shape(),
                              own_labels(rank_, batch.tokens, targets, {0, part.length}));
    return batch;
  }

 private:
  // What the decoder reads of the rows `part`: their targets behind the token that it starts with,
  // without the last one.
  TaskRows read_targets(const TaskRows& rows, Part part) const {
    TaskRows targets;
    targets.rows = part.length;
    targets.tokens = rows.target_tokens;
    const auto first = rows.labels.begin() + part.start * rows.target_tokens;
    targets.labels.assign(first, first + part.length * rows.target_tokens);
    for (size_t at = 0; at < targets.labels.size(); ++at) {
      const bool starts = at % static_cast<size_t>(targets.tokens) == 0;
      const int64_t before = starts ? start_ : targets.labels[at - 1];
      targets.ids.push_back(before == kNoLabel ? padding_ : before);
    }
    return targets;
  }

  const std::string type_;
  const int64_t start_, padding_;
  TokenRules target_rules_;
};

}  // namespace

std::unique_ptr<Task> make_seq2seq(Rank& rank, const ModelConfig& config, std::string_view type,
                                   TaskOptions options) {
  return std::make_unique<Seq2Seq>(rank, config, type, std::move(options));
}

}  // namespace weft
