#include "worker/tasks/predicted_tokens.h"

#include <algorithm>
#include <cmath>

namespace weft {

int64_t labels_that_count(const TaskRows& rows) {
  return std::ssize(rows.labels) - std::ranges::count(rows.labels, kNoLabel);
}

std::vector<int64_t> own_labels(const Rank& rank, const TokenBatch& batch, const TaskRows& rows,
                                Part part) {
  std::vector<int64_t> labels;
  labels.reserve(static_cast<size_t>(batch.ids.elements()));
  for (int64_t row = part.start; row < part.start + part.length; ++row) {
    const auto first = rows.labels.begin() + row * rows.tokens;
    for (const Part& run : batch.layout->runs(rank.mesh.index(Axis::kSequence))) {
      labels.insert(labels.end(), first + run.start, first + run.start + run.length);
    }
  }
  return labels;
}

int64_t most_in_block(const Rank& rank, const TaskRows& rows, Part part) {
  const int64_t first_row = part.start - rank.mesh.index(Axis::kData) * part.length;
  const int64_t tokens = part.length * rank.mesh.size(Axis::kData) * rows.tokens / rank.blocks;
  int64_t most = 0;
  for (int64_t block = 0; block < rank.blocks; ++block) {
    const auto first = rows.labels.begin() + first_row * rows.tokens + block * tokens;
    most = std::max(most, tokens - std::count(first, first + tokens, kNoLabel));
  }
  return most;
}

std::vector<int64_t> best_classes(const Tensor& scores) {
  const int64_t classes = scores.shape()[-1];
  const std::vector<float> all = scores.to_vector<float>();
  std::vector<int64_t> best;
  for (auto row = all.begin(); row != all.end(); row += classes) {
    best.push_back(std::max_element(row, row + classes) - row);
  }
  return best;
}

int64_t predicted_room(int64_t tokens, int64_t predicted, double rate) {
  constexpr double kDeviations = 6;
  const double mean = rate * static_cast<double>(tokens);
  const auto room =
      static_cast<int64_t>(std::ceil(mean + kDeviations * std::sqrt(mean * (1 - rate))));
  return predicted > room ? tokens : std::min(room, tokens);
}

}  // namespace weft
