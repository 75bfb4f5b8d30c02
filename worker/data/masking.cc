#include "worker/data/masking.h"

#include <algorithm>

#include "worker/data/draw.h"
#include "worker/data/rows.h"

namespace weft {
namespace {

constexpr float kMasked = 0.8F, kMaskedOrRandom = 0.9F;

enum Use : uint64_t { kChosen = 1, kReplaced, kToken };

}  // namespace

Result<Masking> Masking::create(const Tokenizer& tokenizer, double rate) {
  if (!tokenizer.mask_id()) {
    return fail(Status::invalid("tokenizer", std::string(tokenizer.type()),
                                "must have a mask token for a masked_lm: mask_token in "
                                "tokenizer_config.json, or a special token [MASK] or <mask>"));
  }
  Masking masking;
  masking.rate_ = rate;
  masking.mask_id_ = *tokenizer.mask_id();
  masking.special_.assign(tokenizer.special_ids().begin(), tokenizer.special_ids().end());
  masking.ordinary_count_ = tokenizer.vocab_size() - std::ssize(masking.special_);
  if (masking.ordinary_count_ > 0) return masking;
  return fail(Status::invalid("tokenizer", std::to_string(tokenizer.vocab_size()) + " tokens",
                              "must have tokens that are no special ones for a masked_lm"));
}

bool Masking::is_special(int64_t id) const {
  return id == mask_id_ || std::ranges::binary_search(special_, id);
}

int64_t Masking::ordinary(int64_t number) const {
  for (const int64_t special : special_) number += number >= special ? 1 : 0;
  return number;
}

void Masking::apply(RandomKey key, Visit visit, std::span<int64_t> ids,
                    std::span<int64_t> labels) const {
  const auto stream = [&](Use use) {
    return key.derive(static_cast<uint64_t>(visit.epoch), static_cast<uint64_t>(visit.sample), use);
  };
  const RandomKey chosen = stream(kChosen), replaced = stream(kReplaced), token = stream(kToken);
  for (uint64_t place = 0; place < ids.size(); ++place) {
    int64_t& id = ids[place];
    labels[place] = kNoLabel;
    if (is_special(id) || double{uniform_at(chosen, place)} >= rate_) continue;
    labels[place] = id;
    const float draw = uniform_at(replaced, place);
    if (draw < kMasked) {
      id = mask_id_;
    } else if (draw < kMaskedOrRandom) {
      id = ordinary(
          static_cast<int64_t>(below(token, place, static_cast<uint64_t>(ordinary_count_))));
    }
  }
}

}  // namespace weft
