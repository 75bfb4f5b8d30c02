// Causal language modelling: each token is predicted from those before it.
#include "worker/tasks/tasks.h"
#include "worker/tasks/token_prediction.h"

namespace weft {
namespace {

class CausalLm final : public TokenPrediction {
 public:
  CausalLm(Rank& rank, const ModelConfig& config, TaskOptions options)
      : TokenPrediction(rank, config, std::move(options)) {}
  std::string_view type() const override { return "causal_lm"; }

  int64_t label_count(const TaskRows& rows) const override {
    int64_t count = 0;
    for (int64_t row = 0; row < rows.rows; ++row) {
      for (int64_t token = 0; token < rows.tokens; ++token) {
        count += target(rows, row, token) == kNoLabel ? 0 : 1;
      }
    }
    return count;
  }

  TaskBatch assemble(const TaskRows& rows, Part part) const override {
    TaskBatch batch;
    batch.tokens = assemble_tokens(rank_, rules_, rows, part);
    std::vector<int64_t> labels;
    labels.reserve(static_cast<size_t>(batch.tokens.ids.elements()));
    for (int64_t row = 0; row < part.length; ++row) {
      for (const Part& run : batch.tokens.layout->runs(rank_.mesh.index(Axis::kSequence))) {
        for (int64_t i = 0; i < run.length; ++i) {
          labels.push_back(target(rows, part.start + row, run.start + i));
        }
      }
    }
    batch.labels = Tensor::from<int64_t>(*rank_.allocator, batch.tokens.ids.shape(), labels);
    return batch;
  }

 private:
  // What position `token` of a row predicts: the next token where that counts.
  static int64_t target(const TaskRows& rows, int64_t row, int64_t token) {
    if (token + 1 >= rows.tokens) return kNoLabel;
    const auto at = static_cast<size_t>(row * rows.tokens + token);
    if (!rows.labels.empty()) return rows.labels[at + 1];
    if (!rows.valid.empty() && (rows.valid[at] == 0 || rows.valid[at + 1] == 0)) return kNoLabel;
    if (!rows.documents.empty() && rows.documents[at] != rows.documents[at + 1]) return kNoLabel;
    return rows.ids[at + 1];
  }
};

}  // namespace

std::unique_ptr<Task> make_causal_lm(Rank& rank, const ModelConfig& config, TaskOptions options) {
  return std::make_unique<CausalLm>(rank, config, std::move(options));
}

}  // namespace weft
