#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "worker/serve/generate.h"

namespace weft {
namespace {

struct Candidate {
  int64_t id = 0;
  double weight = 0;  // of the softmax, not normalized
};

// Ids by falling logit, equal ones by id.
std::vector<int64_t> ordered_ids(std::span<const float> logits, size_t keep) {
  std::vector<int64_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto before = [&](int64_t a, int64_t b) {
    const float left = logits[static_cast<size_t>(a)], right = logits[static_cast<size_t>(b)];
    return left != right ? left > right : a < b;
  };
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(keep), ids.end(),
                    before);
  ids.resize(keep);
  return ids;
}

}  // namespace

Status check_options(const GenerateOptions& options) {
  const auto wrong = [](const char* field, auto value, const char* rule) {
    return Status::invalid(field, fmt::format("{}", value), rule);
  };
  if (options.max_tokens < 0) return wrong("max_tokens", options.max_tokens, "must be at least 0");
  if (options.greedy) return Status();
  if (!(options.temperature > 0) || !std::isfinite(options.temperature)) {
    return wrong("temperature", options.temperature, "must be a number above 0");
  }
  if (options.top_k < 0) return wrong("top_k", options.top_k, "must be at least 0");
  if (!(options.top_p > 0) || options.top_p > 1) {
    return wrong("top_p", options.top_p, "must be above 0 and at most 1");
  }
  return Status();
}

int64_t choose_token(std::span<const float> logits, int64_t usable, const GenerateOptions& options,
                     double draw) {
  logits = logits.first(std::min(logits.size(), static_cast<size_t>(usable)));
  if (options.greedy) return std::max_element(logits.begin(), logits.end()) - logits.begin();
  size_t keep = logits.size();
  if (options.top_k > 0) keep = std::min(keep, static_cast<size_t>(options.top_k));
  std::vector<Candidate> candidates;
  const std::vector<int64_t> ids = ordered_ids(logits, keep);
  const double top = double{logits[static_cast<size_t>(ids.front())]};
  double total = 0;
  for (int64_t id : ids) {
    const double logit = double{logits[static_cast<size_t>(id)]};
    const double weight = std::exp((logit - top) / options.temperature);
    candidates.push_back({id, weight});
    total += weight;
  }
  double kept = 0;
  size_t count = 0;
  while (count < candidates.size() && (count == 0 || kept < options.top_p * total)) {
    kept += candidates[count++].weight;
  }
  double left = draw * kept;
  for (size_t i = 0; i < count; ++i) {
    left -= candidates[i].weight;
    if (left < 0) return candidates[i].id;
  }
  return candidates[count - 1].id;
}

}  // namespace weft
