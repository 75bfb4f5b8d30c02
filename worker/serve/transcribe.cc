#include "worker/serve/transcribe.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "worker/serve/generate.h"

namespace weft {
namespace {

// Before what is written, beginning with what the decoder starts with.
std::vector<int64_t> prompt_of(const LoadedModel& model) {
  std::vector<int64_t> ids{model.folder.config->decoder_start_token_id};
  const auto prefix = model.tokenizer->prefix_ids();
  const bool starts = !prefix.empty() && prefix.front() == ids.front();
  ids.insert(ids.end(), prefix.begin() + (starts ? 1 : 0), prefix.end());
  return ids;
}

std::string decoded(const Tokenizer& tokenizer, std::span<const int64_t> ids) {
  return tokenizer.decode(ids, {.skip_special = true});
}

}  // namespace

Result<std::vector<std::string>> transcribe(Rank& rank, LoadedModel& model, const TaskRows& rows,
                                            int64_t target_length) {
  const ModelConfig& config = *model.folder.config;
  std::vector<int64_t> fed = prompt_of(model);  // [rows, tokens], what the cache has not yet seen
  const auto count = static_cast<size_t>(rows.rows), prompt = fed.size();
  // Targets begin behind the first token.
  const int64_t most =
      std::min(target_length, config.target_positions) - static_cast<int64_t>(prompt) + 1;
  for (size_t row = 1; row < count; ++row)
    fed.insert(fed.end(), fed.begin(), fed.begin() + static_cast<int64_t>(prompt));
  TaskRows heard = rows;
  heard.target_tokens = 1;  // of which nothing is read here
  heard.labels.assign(count, kNoLabel);
  auto source = model.task->assemble(heard, {0, rows.rows}).tokens.source;
  KeyValueCache cache;
  cache.capacity = config.target_positions;
  const std::vector<int64_t> ends = end_ids(*model.trunk, *model.tokenizer);
  std::vector<std::vector<int64_t>> written(count);
  std::vector<bool> ended(count);
  for (int64_t step = 0; step < most && std::ranges::find(ended, false) != ended.end(); ++step) {
    const std::vector<float> logits =
        next_logits(rank, *model.trunk, cache, fed, std::exchange(source, nullptr), rows.rows);
    const auto width = logits.size() / count;
    fed.assign(count, ends.empty() ? 0 : ends.front());
    for (size_t row = 0; row < count; ++row) {
      if (ended[row]) continue;
      const auto own = std::span(logits).subspan(row * width, width);
      if (!std::ranges::all_of(own, [](float value) { return std::isfinite(value); })) {
        return fail(Code::kFailedPrecondition,
                    model.folder.path +
                        " gives scores that are no finite numbers; its weights may "
                        "be broken, or too large for the precision");
      }
      const int64_t id =
          choose_token(own, model.tokenizer->vocab_size(), {.greedy = true}, /*draw=*/0);
      ended[row] = std::ranges::find(ends, id) != ends.end();
      if (ended[row]) continue;
      fed[row] = id;
      written[row].push_back(id);
    }
  }
  std::vector<std::string> texts;
  for (const auto& ids : written) texts.push_back(decoded(*model.tokenizer, ids));
  return texts;
}

std::string target_text(const Tokenizer& tokenizer, const TaskRows& rows, int64_t row) {
  const auto labels = std::span(rows.labels)
                          .subspan(static_cast<size_t>(row * rows.target_tokens),
                                   static_cast<size_t>(rows.target_tokens));
  const auto end = std::ranges::find(labels, kNoLabel);
  return decoded(tokenizer, labels.first(static_cast<size_t>(end - labels.begin())));
}

}  // namespace weft
