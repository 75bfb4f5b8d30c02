// A regular expression of a tokenizer (Oniguruma, as the `tokenizers` package uses), compiled once,
// with limits on stack and retries so that neither a text nor a pattern can make it hang.
//
// Thread safety: const calls from any thread. Ownership: owns the compiled expression.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "proto/base/status.h"

namespace weft::tokenizers {

struct Match {
  size_t begin = 0, end = 0;
};

class Regex {
 public:
  // Error: what is wrong with the pattern.
  static Result<std::shared_ptr<const Regex>> compile(std::string_view pattern);
  virtual ~Regex() = default;
  // The first match at or behind byte `from` of `text` (valid UTF-8); nullopt: none. Error: the
  // limits of matching.
  virtual Result<std::optional<Match>> find(std::string_view text, size_t from) const = 0;

  // Matches one after the other; an empty match right behind the last one does not count. `visit`
  // gets each stretch of the text with whether it matched. Errors: as of find(), and of `visit`.
  Status for_each_stretch(std::string_view text,
                          const std::function<Status(Match, bool)>& visit) const;
};

}  // namespace weft::tokenizers
