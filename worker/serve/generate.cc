#include "worker/serve/generate.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/ops/ops.h"

namespace weft {
namespace {

// Hands the text on piece by piece as it settles.
class TextStream {
 public:
  // `continues`: the text stands behind another.
  TextStream(const Tokenizer& tokenizer, bool continues, const OnText& sink)
      : tokenizer_(tokenizer), continues_(continues), sink_(sink) {}

  std::string whole(std::span<const int64_t> ids) const { return decoded(ids, false); }

  // False: the sink wants no more.
  bool update(std::span<const int64_t> ids, bool last) {
    if (!sink_) return true;
    const std::string text = decoded(ids, !last);
    if (text.size() <= sent_) return true;
    const std::string piece = text.substr(sent_);
    sent_ = text.size();
    return sink_(piece);
  }

 private:
  std::string decoded(std::span<const int64_t> ids, bool settled) const {
    return tokenizer_.decode(ids,
                             {.skip_special = true, .continues = continues_, .settled = settled});
  }

  const Tokenizer& tokenizer_;
  const bool continues_;
  const OnText& sink_;
  size_t sent_ = 0;
};

Result<std::vector<int64_t>> start_ids(const Trunk& trunk, const Tokenizer& tokenizer,
                                       std::string_view prompt, bool whole_prompt) {
  const ModelConfig& config = trunk.config();
  const bool reads = config.encodes_and_decodes();
  WEFT_ASSIGN_OR_RETURN(std::vector<int64_t> ids, tokenizer.encode(prompt, reads && !whole_prompt));
  std::span<const int64_t> prefix;
  if (!whole_prompt && !reads) prefix = tokenizer.prefix_ids();
  if (std::ranges::mismatch(ids, prefix).in2 != prefix.end()) {
    ids.insert(ids.begin(), prefix.begin(), prefix.end());
  }
  if (ids.empty() && !reads) {
    std::vector<std::optional<int64_t>> starts{tokenizer.bos_id(), tokenizer.eos_id(),
                                               config.bos_token_id};
    starts.insert(starts.end(), config.eos_token_ids.begin(), config.eos_token_ids.end());
    for (const std::optional<int64_t>& id : starts) {
      if (ids.empty() && id && *id >= 0 && *id < config.vocabulary) ids.push_back(*id);
    }
  }
  if (ids.empty()) {
    return fail(Status::invalid("prompt", "",
                                reads ? "must not be empty: it is what the model reads"
                                      : "must not be empty: the model has no start token"));
  }
  for (int64_t id : ids) {
    if (id >= 0 && id < config.vocabulary) continue;
    return fail(Status::invalid("prompt", "token " + std::to_string(id),
                                "the model's vocabulary has " + std::to_string(config.vocabulary) +
                                    " tokens: model and tokenizer do not belong together"));
  }
  return ids;
}

// Tokens of rows, as they follow what a cache of `length` holds.
TokenBatch rows_of(Rank& rank, std::span<const int64_t> ids, int64_t length, int64_t rows) {
  const int64_t count = std::ssize(ids) / rows;
  TokenBatch batch;
  batch.ids = Tensor::from<int64_t>(*rank.allocator, {rows, count}, ids);
  std::vector<int64_t> positions(ids.size());
  for (auto at = positions.begin(); at != positions.end(); at += count) {
    std::iota(at, at + count, length);
  }
  batch.positions = Tensor::from<int64_t>(*rank.allocator, {rows, count}, positions);
  batch.tokens = count;
  batch.own_tokens = count;
  batch.rows = rows;
  return batch;
}

// What an encoder-decoder reads.
std::shared_ptr<const TokenBatch> source_of(Rank& rank, std::span<const int64_t> ids) {
  TokenBatch source = rows_of(rank, ids, 0, 1);
  source.layout = std::make_shared<const parallel::SequenceLayout>(
      parallel::SequenceLayout::contiguous(source.tokens, 1));
  return std::make_shared<const TokenBatch>(std::move(source));
}

// The tokens so far and the cache that follows them within the model's positions.
class Window {
 public:
  Window(Rank& rank, Trunk& trunk, std::vector<int64_t> ids) : rank_(rank), trunk_(trunk) {
    if (trunk.config().encodes_and_decodes()) {
      source_ = source_of(rank, ids);
      ids = {trunk.config().decoder_start_token_id};
    }
    const ModelConfig& config = trunk.config();
    const auto positions = static_cast<size_t>(
        config.encodes_and_decodes() ? config.target_positions : config.positions);
    if (ids.size() > positions) {
      dropped_ = static_cast<int64_t>(ids.size() - positions);
      ids.erase(ids.begin(), ids.end() - static_cast<std::ptrdiff_t>(positions));
    }
    ids_ = std::move(ids);
    cache_.capacity = static_cast<int64_t>(positions);
  }

  void push(int64_t id) { ids_.push_back(id); }
  int64_t dropped() const { return dropped_; }
  int64_t restarts() const { return restarts_; }

  std::vector<float> logits() {
    if (static_cast<int64_t>(ids_.size()) > cache_.capacity) {
      const int64_t keep = std::max<int64_t>(1, cache_.capacity / 2);
      ids_.erase(ids_.begin(), ids_.end() - keep);
      cache_.length = 0;
      ++restarts_;
    }
    return next_logits(rank_, trunk_, cache_,
                       std::span(ids_).subspan(static_cast<size_t>(cache_.length)),
                       std::exchange(source_, nullptr));
  }

 private:
  Rank& rank_;
  Trunk& trunk_;
  std::vector<int64_t> ids_;
  std::shared_ptr<const TokenBatch> source_;  // until the cache has seen it
  KeyValueCache cache_;
  int64_t dropped_ = 0, restarts_ = 0;
};

}  // namespace

std::vector<int64_t> end_ids(const Trunk& trunk, const Tokenizer& tokenizer) {
  const std::vector<int64_t>& all = trunk.config().eos_token_ids;
  const std::optional<int64_t> own = tokenizer.eos_id();
  if (!own || std::ranges::find(all, *own) != all.end()) return all;
  return {*own};
}

std::vector<float> next_logits(Rank& rank, Trunk& trunk, KeyValueCache& cache,
                               std::span<const int64_t> ids,
                               std::shared_ptr<const TokenBatch> source, int64_t rows) {
  Context cx = rank.context();
  TokenBatch batch = rows_of(rank, ids, cache.length, rows);
  batch.cache = &cache;
  batch.source = std::move(source);
  const Tensor hidden = trunk.forward(cx, batch);
  batch.own_tokens = 1;
  const Tensor last = ops::contiguous(cx, ops::slice(cx, hidden, 1, hidden.dim(1) - 1, 1));
  return ops::cast(cx, trunk.token_logits(cx, batch, last), DType::kF32).to_vector<float>();
}

Result<Generated> generate(Rank& rank, Trunk& trunk, const Tokenizer& tokenizer,
                           std::string_view prompt, const GenerateOptions& options,
                           const OnText& on_text) {
  WEFT_RETURN_IF_ERROR(check_options(options));
  if (rank.mesh.size(Axis::kWorld) != 1) {
    return fail(Code::kFailedPrecondition, "generation runs on one rank");
  }
  constexpr uint64_t kSampling = 0x5a3;
  const RandomKey key = RandomKey{options.seed}.derive(kSampling);
  std::vector<int64_t> ends = end_ids(trunk, tokenizer);
  ends.insert(ends.end(), options.ends.begin(), options.ends.end());
  WEFT_ASSIGN_OR_RETURN(std::vector<int64_t> ids,
                        start_ids(trunk, tokenizer, prompt, options.whole_prompt));
  Generated result;
  result.prompt_tokens = static_cast<int64_t>(ids.size());
  const bool continues = !trunk.config().encodes_and_decodes() &&
                         !tokenizer.decode(ids, {.skip_special = true, .continues = true}).empty();
  TextStream stream(tokenizer, continues, on_text);
  Window window(rank, trunk, std::move(ids));
  result.dropped_tokens = window.dropped();
  bool more = true;
  for (int64_t step = 0; more && step < options.max_tokens; ++step) {
    const std::vector<float> logits = window.logits();
    const int64_t id = choose_token(logits, tokenizer.vocab_size(), options,
                                    double{uniform_at(key, static_cast<uint64_t>(step))});
    if (options.stop_at_eos && std::ranges::find(ends, id) != ends.end()) {
      result.reason = FinishReason::kEos;
      break;
    }
    result.ids.push_back(id);
    window.push(id);
    more = stream.update(result.ids, false);
    if (!more) result.reason = FinishReason::kStopped;
  }
  if (more) stream.update(result.ids, true);
  result.restarts = window.restarts();
  result.text = stream.whole(result.ids);
  return result;
}

}  // namespace weft
