#include "worker/data/tokenizers/decoder.h"

#include <array>
#include <utility>

#include "proto/json/utf8.h"
#include "worker/data/tokenizers/byte_alphabet.h"
#include "worker/data/tokenizers/json_fields.h"
#include "worker/data/tokenizers/unicode.h"

namespace weft::tokenizers {
namespace {

constexpr uint64_t kStripMost = 1024;

std::string joined(const std::vector<std::string>& tokens) {
  std::string text;
  for (const std::string& token : tokens) text += token;
  return text;
}

// A run of byte tokens is one text if its bytes are valid UTF-8, else a U+FFFD for each byte.
std::vector<std::string> bytes_joined(std::vector<std::string> tokens) {
  std::vector<std::string> result;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (utf8_first_invalid(bytes) == std::string::npos) {
      result.push_back(std::move(bytes));
    } else {
      result.insert(result.end(), bytes.size(), std::string(kReplacement));
    }
    bytes.clear();
  };
  for (std::string& token : tokens) {
    const int byte = byte_of_token(token);
    if (byte >= 0) {
      bytes += static_cast<char>(byte);
      continue;
    }
    flush();
    result.push_back(std::move(token));
  }
  flush();
  return result;
}

void strip_start(const std::string& content, size_t most, std::string* token) {
  size_t cut = 0;
  while (most-- > 0 && std::string_view(*token).substr(cut).starts_with(content)) {
    cut += content.size();
  }
  token->erase(0, cut);
}

// As the WordPiece decoder of the `tokenizers` package, token by token.
std::string cleaned(std::string token) {
  static constexpr std::array<std::pair<const char*, const char*>, 11> kShorter{
      {{" .", "."},
       {" ?", "?"},
       {" !", "!"},
       {" ,", ","},
       {" ' ", "'"},
       {" n't", "n't"},
       {" 'm", "'m"},
       {" do not", " don't"},
       {" 's", "'s"},
       {" 've", "'ve"},
       {" 're", "'re"}}};
  for (const auto& [longer, shorter] : kShorter) token = replaced(token, longer, shorter);
  return token;
}

}  // namespace

int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return -1;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

Result<Decoder> Decoder::parse(const json& section, bool byte_level) {
  Decoder result;
  const json& type = member(section, "type");
  if (!byte_level && type == "ByteLevel") {
    return fail(wrong("decoder.type", type, "must go with a pre_tokenizer that ends with it"));
  }
  if (!byte_level) {
    WEFT_RETURN_IF_ERROR(result.add(section, "decoder", 0));
    return result;
  }
  WEFT_RETURN_IF_ERROR(
      check_object("decoder", section, {"type", "add_prefix_space", "trim_offsets", "use_regex"}));
  if (type != "ByteLevel") {
    return fail(wrong("decoder.type", type, "must be ByteLevel, as the pre_tokenizer is"));
  }
  result.byte_level_ = true;
  return result;
}

Status Decoder::add(const json& section, const std::string& field, int depth) {
  const json& type = member(section, "type");
  // Of tokens made one, further tokens change nothing where nothing but the start is changed.
  if (fuse_ && type != "Strip") {
    return wrong(field + ".type", type, "must be Strip here: no other is supported behind Fuse");
  }
  Step step;
  if (type == "Replace") {
    step.kind = Kind::kReplace;
    WEFT_ASSIGN_OR_RETURN(step.replace, parse_replace(section, field));
    if (step.replace.regex != nullptr) {
      return wrong(field + ".pattern.Regex", step.replace.pattern,
                   "must be a String here: a decoder's pattern is not supported");
    }
  } else if (type == "ByteFallback" || type == "Fuse") {
    WEFT_RETURN_IF_ERROR(check_object(field, section, {"type"}));
    if (type == "ByteFallback" && byte_fallback_) {
      return wrong(field + ".type", type, "must stand in the decoder once");
    }
    step.kind = type == "Fuse" ? Kind::kFuse : Kind::kByteFallback;
    (type == "Fuse" ? fuse_ : byte_fallback_) = true;
  } else if (type == "Strip") {
    return add_strip(section, field);
  } else if (type == "WordPiece") {
    return add_word_piece(section, field);
  } else if (type == "Metaspace") {
    step.kind = Kind::kMetaspace;
    WEFT_ASSIGN_OR_RETURN(step.metaspace, parse_metaspace(section, field));
  } else if (type == "Sequence" && depth < 4) {
    WEFT_RETURN_IF_ERROR(check_object(field, section, {"type", "decoders"}));
    const json& list = member(section, "decoders");
    if (!list.is_array() || list.size() > 16) {
      return wrong(field + ".decoders", list, "must be an array of at most 16");
    }
    for (size_t i = 0; i < list.size(); ++i) {
      WEFT_RETURN_IF_ERROR(add(list[i], field + ".decoders[" + std::to_string(i) + "]", depth + 1));
    }
    return {};
  } else {
    return wrong(
        field + ".type", type,
        "must be Replace, ByteFallback, Fuse, Strip, Metaspace, WordPiece or a Sequence of "
        "these: no other is supported");
  }
  steps_.push_back(std::move(step));
  return {};
}

Status Decoder::add_strip(const json& section, const std::string& field) {
  WEFT_RETURN_IF_ERROR(check_object(field, section, {"type", "content", "start", "stop"}));
  Step step;
  step.kind = Kind::kStrip;
  WEFT_ASSIGN_OR_RETURN(step.replace.content, string_at(field, section, "content"));
  if (!is_one_character(step.replace.content)) {
    return wrong(field + ".content", step.replace.content, "must be one character");
  }
  const json& start = member(section, "start");
  if (!start.is_number_unsigned() || start.get<uint64_t>() > kStripMost) {
    return wrong(field + ".start", start, "must be an integer in [0, 1024]");
  }
  step.start = start.get<size_t>();
  if (const json& stop = member(section, "stop"); stop != 0) {
    return wrong(field + ".stop", stop, "must be 0: only the start of a text is stripped");
  }
  steps_.push_back(std::move(step));
  return {};
}

Status Decoder::add_word_piece(const json& section, const std::string& field) {
  WEFT_RETURN_IF_ERROR(check_object(field, section, {"type", "prefix", "cleanup"}));
  Step step;
  step.kind = Kind::kWordPiece;
  WEFT_ASSIGN_OR_RETURN(step.replace.pattern, string_at(field, section, "prefix"));
  WEFT_ASSIGN_OR_RETURN(step.cleans, bool_at(field, section, "cleanup", true));
  steps_.push_back(std::move(step));
  return {};
}

void Decoder::change(const Step& step, bool first, std::string* token) {
  if (step.kind == Kind::kReplace) {
    *token = replaced(*token, step.replace.pattern, step.replace.content);
  } else if (step.kind == Kind::kStrip) {
    strip_start(step.replace.content, step.start, token);
  } else if (step.kind == Kind::kMetaspace) {
    const bool drop = first && step.metaspace.prepend != PrependScheme::kNever;
    *token = replaced(*token, step.metaspace.replacement, drop ? "" : " ");
  } else if (step.kind == Kind::kWordPiece) {
    const std::string& prefix = step.replace.pattern;
    if (!first) {
      *token = token->starts_with(prefix) ? token->substr(prefix.size()) : " " + *token;
    }
    if (step.cleans) *token = cleaned(std::move(*token));
  }
}

bool Decoder::is_open(std::string_view token) const {
  if (!byte_fallback_) return false;
  // As the text's first token it may lose what keeps it from being a byte.
  for (const bool first : {false, true}) {
    std::string changed(token);
    for (const Step& step : steps_) {
      if (step.kind == Kind::kByteFallback) break;
      change(step, first, &changed);
    }
    if (byte_of_token(changed) >= 0) return true;
  }
  return false;
}

std::string Decoder::decode(std::vector<std::string> tokens, bool continues) const {
  if (byte_level_) {
    std::string bytes;
    for (const std::string& token : tokens) {
      const auto raw = raw_bytes(token);
      bytes += raw ? *raw : token;
    }
    return to_valid_utf8(bytes);
  }
  bool fused = false;
  for (const Step& step : steps_) {
    if (step.kind == Kind::kByteFallback) tokens = bytes_joined(std::move(tokens));
    if (step.kind == Kind::kFuse) {
      tokens = {joined(tokens)};
      fused = true;
    }
    for (size_t i = 0; i < tokens.size(); ++i) {
      const bool first = i == 0 && !continues;
      if (step.kind != Kind::kStrip || first || !fused) change(step, first, &tokens[i]);
    }
  }
  return joined(tokens);
}

}  // namespace weft::tokenizers
