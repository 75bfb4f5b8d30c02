#include "worker/data/tokenizers/regex.h"

#include <oniguruma.h>

#include <array>
#include <mutex>

namespace weft::tokenizers {
namespace {

constexpr unsigned int kStackEntriesMax = 4'000'000;
constexpr unsigned long kRetriesMax = 20'000'000;  // a match
constexpr size_t kPatternBytesMax = 65536;

const OnigUChar* bytes_of(const char* text) { return reinterpret_cast<const OnigUChar*>(text); }

std::string message_of(int code, OnigErrorInfo* info) {
  std::array<OnigUChar, ONIG_MAX_ERROR_MESSAGE_LEN> text = {};
  const int length = info != nullptr ? onig_error_code_to_str(text.data(), code, info)
                                     : onig_error_code_to_str(text.data(), code);
  return std::string(text.begin(), text.begin() + length);
}

size_t next_code_point(std::string_view text, size_t at) {
  ++at;
  while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) ++at;
  return at;
}

struct MatchParam {
  MatchParam() : param(onig_new_match_param()) {
    onig_initialize_match_param(param);
    onig_set_match_stack_limit_size_of_match_param(param, kStackEntriesMax);
    onig_set_retry_limit_in_match_of_match_param(param, kRetriesMax);
    onig_set_retry_limit_in_search_of_match_param(param, 0);
  }
  MatchParam(const MatchParam&) = delete;
  MatchParam& operator=(const MatchParam&) = delete;
  ~MatchParam() { onig_free_match_param(param); }
  OnigMatchParam* param;
};

struct Region {
  Region() : region(onig_region_new()) {}
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region() { onig_region_free(region, 1); }
  OnigRegion* region;
};

class OnigRegex final : public Regex {
 public:
  explicit OnigRegex(regex_t* regex) : regex_(regex) {}
  OnigRegex(const OnigRegex&) = delete;
  OnigRegex& operator=(const OnigRegex&) = delete;
  ~OnigRegex() override { onig_free(regex_); }

  Result<std::optional<Match>> find(std::string_view text, size_t from) const override {
    static thread_local Region region;
    static thread_local MatchParam param;
    const OnigUChar* start = bytes_of(text.data());
    const OnigUChar* end = start + text.size();
    const int found = onig_search_with_param(regex_, start, end, start + from, end, region.region,
                                             ONIG_OPTION_NONE, param.param);
    if (found == ONIG_MISMATCH) return std::optional<Match>();
    if (found < 0) {
      return fail(Code::kInvalidArgument,
                  "the tokenizer's pattern cannot match this text within its limits: " +
                      message_of(found, nullptr) + "; split the text into smaller documents");
    }
    return std::optional<Match>(Match{static_cast<size_t>(region.region->beg[0]),
                                      static_cast<size_t>(region.region->end[0])});
  }

 private:
  regex_t* const regex_;
};

}  // namespace

Status Regex::for_each_stretch(std::string_view text,
                               const std::function<Status(Match, bool)>& visit) const {
  size_t from = 0, covered = 0;
  bool after_match = false;
  while (from <= text.size()) {
    WEFT_ASSIGN_OR_RETURN(const std::optional<Match> match, find(text, from));
    if (!match) break;
    if (match->begin == match->end && after_match && match->end == covered) {
      from = next_code_point(text, from);
      continue;
    }
    if (covered < match->begin) WEFT_RETURN_IF_ERROR(visit(Match{covered, match->begin}, false));
    WEFT_RETURN_IF_ERROR(visit(*match, true));
    from = covered = match->end;
    after_match = true;
  }
  if (covered < text.size()) return visit(Match{covered, text.size()}, false);
  return {};
}

Result<std::shared_ptr<const Regex>> Regex::compile(std::string_view pattern) {
  static std::once_flag once;
  std::call_once(once, [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    onig_initialize(encodings, 1);
    onig_set_parse_depth_limit(250);
  });
  if (pattern.size() > kPatternBytesMax) {
    return fail(Status::invalid("pattern", std::to_string(pattern.size()) + " bytes",
                                "must have at most " + std::to_string(kPatternBytesMax)));
  }
  regex_t* regex = nullptr;
  OnigErrorInfo info = {};
  const OnigUChar* start = bytes_of(pattern.data());
  const int code = onig_new(&regex, start, start + pattern.size(), ONIG_OPTION_NONE,
                            ONIG_ENCODING_UTF8, ONIG_SYNTAX_ONIGURUMA, &info);
  if (code != ONIG_NORMAL) {
    return fail(
        Status::invalid("pattern", std::string(pattern.substr(0, 80)), message_of(code, &info)));
  }
  return std::shared_ptr<const Regex>(std::make_shared<OnigRegex>(regex));
}

}  // namespace weft::tokenizers
