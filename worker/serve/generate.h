// Generation: one token after the other from a trunk on one rank, with a key-value cache. A decoder
// goes on behind the prompt; an encoder-decoder reads the prompt and writes a text of its own.
//
// Thread safety: the rank's compute thread. Ownership: everything belongs to the caller.
// Invariants: 1. the same model, prompt, options and seed give the same tokens. 2. logits with the
// cache are those of the whole sequence at once (to rounding). 3. when the model's positions are
// used up, the cache starts anew with the last half of them; Generated says how often.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proto/base/status.h"
#include "worker/data/tokenizers/tokenizer.h"
#include "worker/models/model.h"

namespace weft {

struct GenerateOptions {
  int64_t max_tokens = 128;
  bool greedy = false;       // the likeliest token; the four below are not looked at
  double temperature = 1.0;  // above 0; logits are divided by it
  int64_t top_k = 0;         // only the k likeliest; 0: all
  double top_p = 1.0;        // in (0, 1]: the fewest likeliest tokens whose probabilities reach it
  uint64_t seed = 0;
  bool stop_at_eos = true;
  std::vector<int64_t> ends;  // tokens that end it as eos does
  bool whole_prompt = false;  // nothing is put before the prompt, as a chat template has done that
};

// In the order of field names above: the first that breaks its rule.
Status check_options(const GenerateOptions& options);

enum class FinishReason { kEos, kMaxTokens, kStopped };

struct Generated {
  std::vector<int64_t> ids;    // without the prompt and without the eos that ended it
  std::string text;            // as it goes on behind the prompt, or a text of its own
  int64_t prompt_tokens = 0;   // as encoded, with what stands before it
  int64_t dropped_tokens = 0;  // of the prompt's beginning, beyond the model's positions
  int64_t restarts = 0;        // of the cache
  FinishReason reason = FinishReason::kMaxTokens;
};

// A piece of text, whole UTF-8 characters as far as the tokens form them; false stops.
using OnText = std::function<bool(std::string_view piece)>;

// An encoder-decoder reads the prompt as in training, with what the post-processor puts around a
// text. Else, as in training too, what it puts before a text (bos, say) stands before the prompt,
// where the prompt does not begin with it. An empty prompt without that starts from bos, else eos.
// A prompt beyond the model's positions keeps its last tokens. Errors: options; more than one rank;
// no token to start from; a token id that the model's vocabulary lacks.
Result<Generated> generate(Rank& rank, Trunk& trunk, const Tokenizer& tokenizer,
                           std::string_view prompt, const GenerateOptions& options,
                           const OnText& on_text = {});

// Feeds ids, as many of each row, behind what the cache holds; -> logits of each row's last, [rows,
// vocabulary]. The caller has seen to it that they fit. source: of an encoder-decoder, with its
// first ids.
std::vector<float> next_logits(Rank& rank, Trunk& trunk, KeyValueCache& cache,
                               std::span<const int64_t> ids,
                               std::shared_ptr<const TokenBatch> source = nullptr,
                               int64_t rows = 1);

// The tokens that end a text: the tokenizer's; the model's too where they are of this tokenizer, as
// its own is among them.
std::vector<int64_t> end_ids(const Trunk& trunk, const Tokenizer& tokenizer);

// The id drawn from logits by the options; `draw` is uniform in [0, 1). Ids from `usable` on are
// not drawn (rows of the embedding without a token).
int64_t choose_token(std::span<const float> logits, int64_t usable, const GenerateOptions& options,
                     double draw);

}  // namespace weft
