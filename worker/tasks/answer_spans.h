// Which part of a window answers a question, by the logits of the row's tokens.
//
// Thread safety: pure functions.
#pragma once

#include <span>
#include <vector>

#include "worker/data/answers.h"
#include "worker/data/rows.h"

namespace weft {

// As transformers' run_qa.py: of the 20 likeliest beginnings and ends the pair with the largest sum
// that lies in the window's text, in order, and has at most 30 tokens. The row's logits are those
// of its tokens without padding.
FoundAnswer best_answer(std::span<const float> starts, std::span<const float> ends,
                        const ContextWindow& window);

// The same, of the likeliest tokens of the text where there is none of all tokens; and log_total,
// by which the probabilities of the tokens of the text and of the row's first one sum to 1.
FoundAnswer likeliest_answer(std::span<const float> starts, std::span<const float> ends,
                             const ContextWindow& window);

}  // namespace weft
