// Byte-level BPE: added tokens, NFC, pre-tokenizer, merges, post-processor; see tokenizer.h.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "proto/json/parse.h"
#include "proto/json/utf8.h"
#include "worker/data/tokenizers/added_tokens.h"
#include "worker/data/tokenizers/byte_alphabet.h"
#include "worker/data/tokenizers/json_fields.h"
#include "worker/data/tokenizers/post_processor.h"
#include "worker/data/tokenizers/pre_tokenizer.h"
#include "worker/data/tokenizers/tokenizer.h"
#include "worker/data/tokenizers/unicode.h"

namespace weft {
namespace tokenizers {
namespace {

constexpr size_t kFlushIds = 65536;
constexpr int64_t kEndOfText = 256;  // of the byte tokenizer
constexpr std::string_view kEndOfTextName = "<|endoftext|>";

// The symbols of one word, whose bytes add up to it, or of an added token. begin: its first byte,
// counted from byte `base` of the text. shifted: a space was put in front of byte `base`, and begin
// counts it.
struct SymbolRun {
  size_t base = 0, begin = 0;
  bool shifted = false, added = false;
  std::span<const Symbol> symbols;
};
using SymbolSink = std::function<void(const SymbolRun&)>;

class BpeTokenizer final : public Tokenizer {
 public:
  Status load(const json& file, const json& config);

  std::string_view type() const override { return "byte_level_bpe"; }
  int64_t vocab_size() const override { return vocab_size_; }
  std::span<const int64_t> prefix_ids() const override { return post_.prefix; }
  std::span<const int64_t> suffix_ids() const override { return post_.suffix; }
  Result<Encoding> encode_with_offsets(std::string_view text, bool add_special) const override;
  Status encode_to(std::string_view text, bool add_special, const IdSink& sink) const override;
  std::string decode(std::span<const int64_t> ids, bool skip_special) const override;

 private:
  Status load_normalizer(const json& section, const std::string& field, int depth);
  Status load_special(const json& config);
  // The symbols of a text without added tokens in it that are looked for before normalization.
  Status encode_stretch(std::string_view text, const SymbolSink& sink) const;
  Status check_text(std::string_view text) const;
  const std::string* token_of(int64_t id) const;
  // Leaves out the white space that `token` has at its ends. first: of its text.
  void trim(std::string_view token, bool first, TokenOffsets* offsets) const;

  std::shared_ptr<const BpeModel> model_;
  PreTokenizer pre_tokenizer_;
  PostProcessor post_;
  bool nfc_ = false;
  TokenMatcher before_, after_;  // added tokens looked for before and after normalization
  std::map<int64_t, AddedToken> added_;
  int64_t vocab_size_ = 0;
};

Status BpeTokenizer::load(const json& file, const json& config) {
  WEFT_RETURN_IF_ERROR(
      check_object("", file,
                   {"version", "truncation", "padding", "added_tokens", "normalizer",
                    "pre_tokenizer", "post_processor", "decoder", "model"}));
  const json& version = member(file, "version");
  if (!version.is_null() && version != "1.0") return wrong("version", version, "must be 1.0");
  for (const char* key : {"truncation", "padding"}) {  // the job's affair: read, not applied
    const json& section = member(file, key);
    if (!section.is_null() && !section.is_object()) {
      return wrong(key, section, "must be an object or null");
    }
  }
  WEFT_RETURN_IF_ERROR(load_normalizer(member(file, "normalizer"), "normalizer", 0));
  WEFT_ASSIGN_OR_RETURN(pre_tokenizer_, PreTokenizer::parse(member(file, "pre_tokenizer")));
  const json& decoder = member(file, "decoder");
  WEFT_RETURN_IF_ERROR(
      check_object("decoder", decoder, {"type", "add_prefix_space", "trim_offsets", "use_regex"}));
  if (member(decoder, "type") != "ByteLevel") {
    return wrong("decoder.type", member(decoder, "type"),
                 "must be ByteLevel: no other is supported");
  }
  WEFT_ASSIGN_OR_RETURN(model_, BpeModel::parse(member(file, "model")));
  WEFT_ASSIGN_OR_RETURN(auto added, parse_added_tokens(member(file, "added_tokens"), *model_));
  vocab_size_ = model_->vocab_size();
  for (AddedToken& token : added) {
    std::string content = token.content;
    if (token.normalized && nfc_) {
      WEFT_ASSIGN_OR_RETURN(Normalized normalized, to_nfc(content, false));
      content = std::move(normalized.text);
    }
    (token.normalized ? after_ : before_).add(token, content);
    vocab_size_ = std::max(vocab_size_, token.id + 1);
    added_.emplace(token.id, std::move(token));
  }
  WEFT_ASSIGN_OR_RETURN(post_, parse_post_processor(member(file, "post_processor"), vocab_size_));
  return load_special(config);
}

Status BpeTokenizer::load_normalizer(const json& section, const std::string& field, int depth) {
  if (section.is_null()) return {};
  const json& type = member(section, "type");
  if (type == "NFC") {
    nfc_ = true;
    return check_object(field, section, {"type"});
  }
  if (type == "Sequence" && depth < 4) {
    WEFT_RETURN_IF_ERROR(check_object(field, section, {"type", "normalizers"}));
    const json& list = member(section, "normalizers");
    if (!list.is_array() || list.size() > 16) {
      return wrong(field + ".normalizers", list, "must be an array of at most 16");
    }
    for (size_t i = 0; i < list.size(); ++i) {
      WEFT_RETURN_IF_ERROR(
          load_normalizer(list[i], field + ".normalizers[" + std::to_string(i) + "]", depth + 1));
    }
    return {};
  }
  return wrong(field + ".type", type, "must be NFC or a Sequence of NFC: no other is supported");
}

// tokenizer_config.json names its special tokens as a string or as an object with `content`.
Status BpeTokenizer::load_special(const json& config) {
  const auto id_named = [this](const std::string& token) -> std::optional<int64_t> {
    for (const auto& [id, added] : added_) {
      if (added.content == token) return id;
    }
    return model_->find(token);
  };
  const auto read = [&](const char* key, std::optional<int64_t>* id) -> Status {
    const json& value = member(config, key);
    if (value.is_null()) return {};
    const json& text = value.is_object() ? member(value, "content") : value;
    const std::string field = std::string("tokenizer_config.json ") + key;
    if (!text.is_string()) return wrong(field, value, "must be a token");
    *id = id_named(text.get<std::string>());
    return *id ? Status() : wrong(field, text, "is no token of tokenizer.json");
  };
  WEFT_RETURN_IF_ERROR(read("bos_token", &bos_id_));
  WEFT_RETURN_IF_ERROR(read("eos_token", &eos_id_));
  WEFT_RETURN_IF_ERROR(read("pad_token", &pad_id_));
  for (const char* name : {"<|endoftext|>", "</s>", "<|end_of_text|>", "<|im_end|>"}) {
    if (eos_id_) break;
    const auto id = id_named(name);
    if (id && added_.contains(*id) && added_.at(*id).special) eos_id_ = id;
  }
  return {};
}

Status BpeTokenizer::check_text(std::string_view text) const {
  const size_t invalid = utf8_first_invalid(text);
  if (invalid == std::string_view::npos) return {};
  return Status(Code::kInvalidArgument, "byte " + std::to_string(invalid) +
                                            " of the text is not valid UTF-8, which a "
                                            "tokenizer.json needs; convert it (training with "
                                            "tokenizer.type byte takes any bytes)");
}

Status BpeTokenizer::encode_stretch(std::string_view text, const SymbolSink& sink) const {
  std::vector<Symbol> symbols;
  return after_.for_each_stretch(text, [&](const Stretch& stretch) -> Status {
    if (stretch.id >= 0) {
      const Symbol symbol = {static_cast<int32_t>(stretch.id),
                             static_cast<uint32_t>(stretch.end - stretch.begin)};
      sink({.base = stretch.begin, .added = true, .symbols = {&symbol, 1}});
      return {};
    }
    const auto part = text.substr(stretch.begin, stretch.end - stretch.begin);
    return pre_tokenizer_.for_each_word(part, [&](const PreTokenizer::Word& word) -> Status {
      symbols.clear();
      WEFT_RETURN_IF_ERROR(model_->encode(word.text, &symbols));
      sink({.base = stretch.begin + word.piece,
            .begin = word.begin,
            .shifted = word.shifted,
            .symbols = symbols});
      return {};
    });
  });
}

Status BpeTokenizer::encode_to(std::string_view text, bool add_special, const IdSink& sink) const {
  WEFT_RETURN_IF_ERROR(check_text(text));
  std::vector<int32_t> ids;
  const auto add = [&](std::span<const int64_t> more) {
    for (const int64_t id : more) ids.push_back(static_cast<int32_t>(id));
  };
  const SymbolSink collect = [&](const SymbolRun& run) {
    for (const Symbol& symbol : run.symbols) ids.push_back(symbol.id);
    if (ids.size() >= kFlushIds) {
      sink(ids);
      ids.clear();
    }
  };
  if (add_special) add(post_.prefix);
  WEFT_RETURN_IF_ERROR(before_.for_each_stretch(text, [&](const Stretch& stretch) -> Status {
    const auto part = text.substr(stretch.begin, stretch.end - stretch.begin);
    if (stretch.id >= 0) {
      ids.push_back(static_cast<int32_t>(stretch.id));
      return {};
    }
    if (!nfc_) return encode_stretch(part, collect);
    WEFT_ASSIGN_OR_RETURN(const Normalized normalized, to_nfc(part, false));
    return encode_stretch(normalized.text, collect);
  }));
  if (add_special) add(post_.suffix);
  if (!ids.empty()) sink(ids);
  return {};
}

// For each byte of a text, the number of the code point it belongs to.
std::vector<int64_t> code_point_of_bytes(std::string_view text) {
  std::vector<int64_t> numbers;
  numbers.reserve(text.size());
  int64_t number = -1;
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0xC0U) != 0x80U) ++number;
    numbers.push_back(number);
  }
  return numbers;
}

// White space at the start of a token, or at its end, in code points; also a space as the
// byte-level alphabet writes it.
int64_t spaces_at(std::string_view token, bool at_end) {
  static const std::string kSpace = utf8_of(byte_to_code_point()[' ']);
  int64_t count = 0;
  while (!token.empty()) {
    const bool written = at_end ? token.ends_with(kSpace) : token.starts_with(kSpace);
    const size_t bytes = written  ? kSpace.size()
                         : at_end ? space_at_end(token)
                                  : space_at_start(token);
    if (bytes == 0) break;
    const size_t start = at_end ? token.size() - bytes : 0;
    count += code_point_of_bytes(token.substr(start, bytes)).back() + 1;
    at_end ? token.remove_suffix(bytes) : token.remove_prefix(bytes);
  }
  return count;
}

Result<Encoding> BpeTokenizer::encode_with_offsets(std::string_view text, bool add_special) const {
  WEFT_RETURN_IF_ERROR(check_text(text));
  Encoding encoding;
  const std::vector<int64_t> whole = code_point_of_bytes(text);
  const auto add = [&](int64_t id, TokenOffsets offsets, std::string_view token) {
    if (post_.trim_offsets) trim(token, encoding.ids.empty(), &offsets);
    encoding.ids.push_back(id);
    encoding.offsets.push_back(offsets);
  };
  const auto encode_part = [&](const Stretch& stretch) -> Status {
    const auto part = text.substr(stretch.begin, stretch.end - stretch.begin);
    if (stretch.id >= 0) {
      add(stretch.id, {whole[stretch.begin], whole[stretch.end - 1] + 1}, part);
      return {};
    }
    Normalized normalized;
    if (nfc_) {
      WEFT_ASSIGN_OR_RETURN(normalized, to_nfc(part, true));
    } else {
      normalized.text = part;
    }
    const std::vector<int64_t> points = code_point_of_bytes(normalized.text);
    const int64_t first = whole[stretch.begin];
    const auto origin = [&](size_t byte, bool end) {
      const int64_t point = points[byte];
      if (normalized.begin.empty()) return first + point + (end ? 1 : 0);
      return first + (end ? normalized.end : normalized.begin)[static_cast<size_t>(point)];
    };
    return encode_stretch(normalized.text, [&](const SymbolRun& run) {
      size_t at = run.begin;
      for (const Symbol& symbol : run.symbols) {
        const size_t end = at + symbol.bytes;
        // With a space in front, byte i of the word is byte i - 1 of the text; the space counts
        // as the first.
        const size_t from = run.base + (run.shifted && at > 0 ? at - 1 : at);
        const size_t to = run.base + (run.shifted ? std::max<size_t>(end - 1, 1) : end);
        add(symbol.id, {origin(from, false), origin(to - 1, true)},
            run.added ? std::string_view(normalized.text).substr(from, to - from)
                      : std::string_view(*token_of(symbol.id)));
        at = end;
      }
    });
  };
  WEFT_RETURN_IF_ERROR(before_.for_each_stretch(text, encode_part));
  if (add_special) {
    encoding.ids.insert(encoding.ids.begin(), post_.prefix.begin(), post_.prefix.end());
    encoding.offsets.insert(encoding.offsets.begin(), post_.prefix.size(), TokenOffsets());
    encoding.ids.insert(encoding.ids.end(), post_.suffix.begin(), post_.suffix.end());
    encoding.offsets.resize(encoding.ids.size());
  }
  return encoding;
}

// As process_offsets of the `tokenizers` package: a single space at the start of the text stays
// where the post-processor says that one was put there.
void BpeTokenizer::trim(std::string_view token, bool first, TokenOffsets* offsets) const {
  int64_t leading = spaces_at(token, false);
  const int64_t trailing = spaces_at(token, true);
  if (leading == 1 && (first || offsets->begin == 0) && post_.add_prefix_space) leading = 0;
  offsets->begin = std::min(offsets->begin + leading, offsets->end);
  if (offsets->end >= trailing) offsets->end = std::max(offsets->end - trailing, offsets->begin);
}

const std::string* BpeTokenizer::token_of(int64_t id) const {
  if (const auto added = added_.find(id); added != added_.end()) return &added->second.content;
  return id >= 0 && id < model_->vocab_size() ? &model_->token(id) : nullptr;
}

std::string BpeTokenizer::decode(std::span<const int64_t> ids, bool skip_special) const {
  std::string bytes;
  for (const int64_t id : ids) {
    const auto added = added_.find(id);
    if (skip_special && added != added_.end() && added->second.special) continue;
    const std::string* token = token_of(id);
    if (token == nullptr) continue;
    const auto raw = raw_bytes(*token);
    bytes += raw ? *raw : *token;
  }
  return to_valid_utf8(bytes);
}

// Whether a file that can be read is what the byte tokenizer is exported as.
bool is_byte_tokenizer(const json& file) {
  const json& pre = member(file, "pre_tokenizer");
  const json& added = member(file, "added_tokens");
  const json& model = member(file, "model");
  if (!member(file, "normalizer").is_null() || !member(file, "post_processor").is_null() ||
      member(pre, "type") != "ByteLevel" || member(pre, "add_prefix_space") != false ||
      member(pre, "use_regex") != false || !member(model, "merges").empty() || added.size() != 1 ||
      member(added[0], "id") != kEndOfText || member(added[0], "content") != kEndOfTextName ||
      member(added[0], "special") != true) {
    return false;
  }
  int64_t bytes = 0;
  for (const auto& [token, id] : member(model, "vocab").items()) {
    const auto raw = raw_bytes(token);
    const bool byte = raw && raw->size() == 1 && static_cast<unsigned char>(raw->front()) == id;
    if (!byte && (token != kEndOfTextName || id != kEndOfText)) return false;
    if (byte) ++bytes;
  }
  return bytes == kEndOfText;
}

}  // namespace
}  // namespace tokenizers

Result<std::unique_ptr<Tokenizer>> load_tokenizer_json(std::string_view json_text,
                                                       std::string_view config_text) {
  WEFT_ASSIGN_OR_RETURN(const tokenizers::json file, parse_strict(json_text));
  tokenizers::json config;
  if (!config_text.empty()) {
    ParseLimits limits;
    limits.wide_integers = true;
    auto parsed = parse_strict(config_text, limits);
    if (!parsed) return fail(parsed.error().with_prefix("tokenizer_config.json: "));
    config = std::move(*parsed);
  }
  auto tokenizer = std::make_unique<tokenizers::BpeTokenizer>();
  WEFT_RETURN_IF_ERROR(tokenizer->load(file, config));
  if (tokenizers::is_byte_tokenizer(file)) return make_byte_tokenizer();
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace weft
