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

// The symbols of one word, whose bytes add up to it. begin: its first byte, counted from byte
// `base` of the text. shifted: a space was put in front of byte `base`, and begin counts it.
using PieceSink =
    std::function<void(size_t base, size_t begin, bool shifted, std::span<const Symbol>)>;

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
  Status encode_stretch(std::string_view text, const PieceSink& sink) const;
  Status check_text(std::string_view text) const;
  const std::string* token_of(int64_t id) const;
  void trim(Encoding* encoding) const;

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

Status BpeTokenizer::encode_stretch(std::string_view text, const PieceSink& sink) const {
  std::vector<Symbol> symbols;
  return after_.for_each_stretch(text, [&](const Stretch& stretch) -> Status {
    if (stretch.id >= 0) {
      const Symbol symbol = {static_cast<int32_t>(stretch.id),
                             static_cast<uint32_t>(stretch.end - stretch.begin)};
      sink(stretch.begin, 0, false, {&symbol, 1});
      return {};
    }
    const auto part = text.substr(stretch.begin, stretch.end - stretch.begin);
    return pre_tokenizer_.for_each_word(part, [&](const PreTokenizer::Word& word) -> Status {
      symbols.clear();
      WEFT_RETURN_IF_ERROR(model_->encode(word.text, &symbols));
      sink(stretch.begin, word.begin, word.shifted, symbols);
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
  const PieceSink collect = [&](size_t, size_t, bool, std::span<const Symbol> symbols) {
    for (const Symbol& symbol : symbols) ids.push_back(symbol.id);
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

int64_t code_points(std::string_view text, size_t bytes) {
  return bytes == 0 ? 0 : code_point_of_bytes(text.substr(0, bytes)).back() + 1;
}

Result<Encoding> BpeTokenizer::encode_with_offsets(std::string_view text, bool add_special) const {
  WEFT_RETURN_IF_ERROR(check_text(text));
  Encoding encoding;
  const std::vector<int64_t> whole = code_point_of_bytes(text);
  const auto encode_part = [&](const Stretch& stretch) -> Status {
    const auto part = text.substr(stretch.begin, stretch.end - stretch.begin);
    if (stretch.id >= 0) {
      encoding.ids.push_back(stretch.id);
      const bool trim = post_.trim_offsets;  // white space that it took along
      const int64_t before = trim ? code_points(part, space_at_start(part)) : 0;
      const int64_t behind = trim ? code_points(part, part.size()) -
                                        code_points(part, part.size() - space_at_end(part))
                                  : 0;
      encoding.offsets.push_back(
          {whole[stretch.begin] + before, whole[stretch.end - 1] + 1 - behind});
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
    return encode_stretch(
        normalized.text, [&](size_t base, size_t begin, bool shifted, auto symbols) {
          size_t at = begin;
          for (const Symbol& symbol : symbols) {
            const size_t end = at + symbol.bytes;
            // With a space in front, byte i of the word is byte i - 1 of the text; the space counts
            // as the first.
            const size_t from = shifted && at > 0 ? at - 1 : at;
            const size_t to = shifted ? std::max<size_t>(end - 1, 1) : end;
            encoding.ids.push_back(symbol.id);
            encoding.offsets.push_back({origin(base + from, false), origin(base + to - 1, true)});
            at = end;
          }
        });
  };
  WEFT_RETURN_IF_ERROR(before_.for_each_stretch(text, encode_part));
  if (post_.trim_offsets) trim(&encoding);
  if (add_special) {
    encoding.ids.insert(encoding.ids.begin(), post_.prefix.begin(), post_.prefix.end());
    encoding.offsets.insert(encoding.offsets.begin(), post_.prefix.size(), TokenOffsets());
    encoding.ids.insert(encoding.ids.end(), post_.suffix.begin(), post_.suffix.end());
    encoding.offsets.resize(encoding.ids.size());
  }
  return encoding;
}

void BpeTokenizer::trim(Encoding* encoding) const {
  const std::string space = utf8_of(byte_to_code_point()[' ']);
  for (size_t i = 0; i < encoding->ids.size(); ++i) {
    std::string_view token = *token_of(encoding->ids[i]);
    int64_t leading = 0, trailing = 0;
    for (auto rest = token; rest.starts_with(space); rest.remove_prefix(space.size())) ++leading;
    for (auto rest = token; rest.ends_with(space); rest.remove_suffix(space.size())) ++trailing;
    TokenOffsets& offsets = encoding->offsets[i];
    if (leading > 0 && (i == 0 || offsets.begin == 0) && post_.add_prefix_space) --leading;
    offsets.begin = std::min(offsets.begin + leading, offsets.end);
    if (trailing > 0 && offsets.end >= trailing) {
      offsets.end = std::max(offsets.end - trailing, offsets.begin);
    }
  }
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
