#include "worker/admission/check_sizes.h"

#include <fmt/format.h>

#include <cmath>

#include "proto/job.pb.h"
#include "worker/models/common_config.h"

namespace weft {
namespace {

// Half of what int64 holds; the other half is room for sums, and for what an allocator adds.
constexpr double kBytesMax = 0x1p62;
// Bytes, at most, of each feature of a token and layer, kept or sent in a step by all ranks
// together: 4 of each use, of which topology-invariant training on a tensor axis has 26, twice as
// many where tokens do not divide evenly. What lies around the layers is as much as a few of them.
constexpr double kUses = 64 * 4, kLayersAround = 4;
constexpr double kScore = 4;  // bytes
// Of each layer, where scores have terms that are kept.
constexpr double kScoreUses = 4;
// Of each parameter a micro-batch: a sum over the ranks, twice of a tied table, and two gathers.
constexpr double kParameterUses = 8 * 4;

// Bytes of a row of t tokens: all t (each + scores t).
struct RowBytes {
  double all = 0, each = 0, scores = 0;
  double of(double tokens) const { return all + tokens * (each + scores * tokens); }
  // The longest row of so many bytes: the root of that.
  double tokens(double bytes) const {
    const double left = std::max(0.0, bytes - all);
    return 2 * left / (each + std::sqrt(each * each + 4 * scores * left));
  }
};

RowBytes row_bytes(const proto::JobSpec& spec, const ModelConfig& config) {
  const auto hidden = static_cast<double>(config.hidden);
  const auto inner = static_cast<double>(config.inner);
  const auto layers = static_cast<double>(config.layers);
  const auto heads = static_cast<double>(config.heads);
  const double scores = config.relative ? kScoreUses * (layers + kLayersAround) : 1;
  const double read =
      (heads + static_cast<double>(config.key_heads)) * static_cast<double>(config.head_features);
  double parameters = matrix_elements(config) + (layers + 1) * (9 * hidden + inner);
  for (const proto::TaskSpec& task : spec.tasks()) parameters += task.labels() * hidden;
  return {kParameterUses * parameters, kUses * (layers + kLayersAround) * (hidden + inner + read),
          kScore * heads * scores};
}

}  // namespace

Status check_sizes(const proto::JobSpec& spec, const ModelConfig& config) {
  const proto::TrainingSpec& training = spec.training();
  const RowBytes row = row_bytes(spec, config);
  const int64_t tokens = int64_t{training.sequence_length()} + training.target_length();
  const double most = std::floor(kBytesMax / row.of(static_cast<double>(tokens)));
  if (training.batch_size() <= most) return {};
  if (most >= 1) {
    return Status::invalid(
        "training.batch_size", std::to_string(training.batch_size()),
        fmt::format("must be at most {:.0f} with this model and training.sequence_length = {}, or "
                    "the bytes of a step are too many to be counted",
                    most, training.sequence_length()));
  }
  const bool target = training.target_length() > training.sequence_length();
  return Status::invalid(
      target ? "training.target_length" : "training.sequence_length",
      std::to_string(target ? training.target_length() : training.sequence_length()),
      fmt::format(
          "must be at most {:.0f} with this model{}, or the bytes of one row are too many to "
          "be counted",
          std::floor(row.tokens(kBytesMax)),
          training.has_target_length() ? ", source and target together" : ""));
}

}  // namespace weft
