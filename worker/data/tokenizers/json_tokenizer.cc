// What a tokenizer.json describes: added tokens, normalizer, pre-tokenizer, model, post-processor,
// decoder; see tokenizer.h.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "proto/json/parse.h"
#include "proto/json/utf8.h"
#include "worker/data/tokenizers/added_tokens.h"
#include "worker/data/tokenizers/byte_alphabet.h"
#include "worker/data/tokenizers/decoder.h"
#include "worker/data/tokenizers/json_fields.h"
#include "worker/data/tokenizers/normalizer.h"
#include "worker/data/tokenizers/post_processor.h"
#include "worker/data/tokenizers/pre_tokenizer.h"
#include "worker/data/tokenizers/tokenizer.h"
#include "worker/data/tokenizers/unicode.h"

namespace weft {
namespace tokenizers {
namespace {

constexpr size_t kFlushIds = 65536;
// Of a text: how long a piece at least is that is encoded by itself, and how many bytes at its end
// are looked through for a place to cut. Without one there the piece grows by as much again.
constexpr size_t kPieceBytes = size_t{64} << 10;
constexpr size_t kCutBytes = size_t{4} << 10;
constexpr int64_t kEndOfText = 256;  // of the byte tokenizer
constexpr std::string_view kEndOfTextName = "<|endoftext|>";

// The symbols of one word, whose bytes add up to it, or of an added token. whole, shifted: as of
// PreTokenizer::Word; begin: the word's first byte in `whole`; base: the piece's in the text.
struct SymbolRun {
  std::string_view whole;
  size_t base = 0, begin = 0;
  bool shifted = false, added = false;
  std::span<const Symbol> symbols;
};
using SymbolSink = std::function<void(const SymbolRun&)>;

class JsonTokenizer final : public Tokenizer {
 public:
  Status load(const json& file, const json& config);

  std::string_view type() const override {
    if (model_->name() != "bpe") return model_->name();
    return decoder_.byte_level() ? "byte_level_bpe" : "character_bpe";
  }
  int64_t vocab_size() const override { return vocab_size_; }
  std::span<const int64_t> prefix_ids() const override { return post_.prefix; }
  std::span<const int64_t> suffix_ids() const override { return post_.suffix; }
  TextTypes text_types() const override { return post_.types; }
  std::span<const PairPiece> pair_pieces() const override { return post_.pair; }
  Result<Encoding> encode_with_offsets(std::string_view text, bool add_special) const override;
  Status encode_to(std::string_view text, bool add_special, const IdSink& sink) const override;
  Status encode_word(std::string_view word, const IdSink& sink) const override;
  std::string decode(std::span<const int64_t> ids, const DecodeOptions& options) const override;

 private:
  Status load_special(const json& config);
  // The symbols of a normalized text without added tokens in it that are looked for before
  // normalization.
  Status encode_stretch(std::string_view text, Start start, const SymbolSink& sink) const;
  // The same of a text to be normalized, piece by piece, so that it takes no memory as a whole.
  Status encode_pieces(std::string_view text, Start start, const SymbolSink& sink) const;
  size_t piece_bytes(std::string_view text) const;
  bool apart(std::string_view before, std::string_view after) const;
  Status check_text(std::string_view text) const;
  const std::string* token_of(int64_t id) const;
  // Leaves out the white space that `token` has at its ends. first: of its text.
  void trim(std::string_view token, bool first, TokenOffsets* offsets) const;

  std::shared_ptr<const WordModel> model_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  PostProcessor post_;
  Decoder decoder_;
  TokenMatcher before_, after_;  // added tokens looked for before and after normalization
  std::map<int64_t, AddedToken> added_;
  int64_t vocab_size_ = 0;
  bool cuts_ = false;  // long stretches may be encoded in pieces
};

Status JsonTokenizer::load(const json& file, const json& config) {
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
  WEFT_ASSIGN_OR_RETURN(normalizer_, Normalizer::parse(member(file, "normalizer")));
  WEFT_ASSIGN_OR_RETURN(pre_tokenizer_, PreTokenizer::parse(member(file, "pre_tokenizer")));
  const bool bytes = pre_tokenizer_.byte_level();
  WEFT_ASSIGN_OR_RETURN(model_, WordModel::parse(member(file, "model"),
                                                 bytes ? Alphabet::kBytes : Alphabet::kCharacters));
  cuts_ = !bytes && model_->name() == "bpe" && pre_tokenizer_.joins_words() &&
          normalizer_.by_characters();
  WEFT_ASSIGN_OR_RETURN(decoder_, Decoder::parse(member(file, "decoder"), bytes));
  WEFT_ASSIGN_OR_RETURN(auto added, parse_added_tokens(member(file, "added_tokens"), *model_));
  vocab_size_ = model_->vocab_size();
  for (AddedToken& token : added) {
    if (token.normalized) {
      WEFT_ASSIGN_OR_RETURN(Normalized normalized, normalizer_.apply(token.content, false));
      token.written = std::move(normalized.text);
    }
    (token.normalized ? after_ : before_).add(token);
    vocab_size_ = std::max(vocab_size_, token.id + 1);
    added_.emplace(token.id, std::move(token));
  }
  WEFT_ASSIGN_OR_RETURN(post_, parse_post_processor(member(file, "post_processor"), vocab_size_));
  return load_special(config);
}

// tokenizer_config.json names its special tokens as a string or as an object with `content`.
Status JsonTokenizer::load_special(const json& config) {
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
  WEFT_RETURN_IF_ERROR(read("mask_token", &mask_id_));
  const auto first_special = [&](std::initializer_list<const char*> names,
                                 std::optional<int64_t>* id) {
    for (const char* name : names) {
      if (*id) return;
      const auto found = id_named(name);
      if (found && added_.contains(*found) && added_.at(*found).special) *id = found;
    }
  };
  first_special({"<|endoftext|>", "</s>", "<|end_of_text|>", "<|im_end|>"}, &eos_id_);
  first_special({"[MASK]", "<mask>"}, &mask_id_);
  for (const auto& [id, token] : added_) {
    if (token.special) special_ids_.push_back(id);
  }
  return {};
}

Status JsonTokenizer::check_text(std::string_view text) const {
  const size_t invalid = utf8_first_invalid(text);
  if (invalid == std::string_view::npos) return {};
  return Status(Code::kInvalidArgument, "byte " + std::to_string(invalid) +
                                            " of the text is not valid UTF-8, which a "
                                            "tokenizer.json needs; convert it (training with "
                                            "tokenizer.type byte takes any bytes)");
}

// Whether a text that has the character `before` in front of `after` may be cut between them.
bool JsonTokenizer::apart(std::string_view before, std::string_view after) const {
  const auto left = normalizer_.apply(before, false, /*begins=*/false);
  const auto right = normalizer_.apply(after, false, /*begins=*/false);
  if (!left || !right) return false;
  const std::string_view last = std::string_view(left->text).substr(last_start(left->text));
  if (!after_.apart(last, right->text)) return false;
  const auto words = [this](std::string_view text) {
    std::string result;
    const Status status =
        pre_tokenizer_.for_each_word(text, Start::kNone, [&](const PreTokenizer::Word& word) {
          result += word.text;
          return Status();
        });
    return status.ok() ? result : std::string();
  };
  const std::string left_word = words(left->text), right_word = words(right->text);
  return !left_word.empty() && !right_word.empty() && model_->apart(left_word, right_word);
}

// Bytes at the start of `text` that are encoded by themselves.
size_t JsonTokenizer::piece_bytes(std::string_view text) const {
  for (size_t end = kPieceBytes; cuts_ && end < text.size(); end += kPieceBytes) {
    size_t at = last_start(text.substr(0, end + 1));
    size_t bytes = 0;
    code_point_at(text.substr(at), &bytes);
    while (at > end - kCutBytes) {
      const size_t before = last_start(text.substr(0, at));
      if (apart(text.substr(before, at - before), text.substr(at, bytes))) return at;
      bytes = at - before;
      at = before;
    }
  }
  return text.size();
}

Status JsonTokenizer::encode_pieces(std::string_view text, Start start,
                                    const SymbolSink& sink) const {
  while (!text.empty()) {
    const std::string_view piece = text.substr(0, piece_bytes(text));
    if (normalizer_.empty()) {
      WEFT_RETURN_IF_ERROR(encode_stretch(piece, start, sink));
    } else {
      WEFT_ASSIGN_OR_RETURN(const Normalized normalized,
                            normalizer_.apply(piece, false, start != Start::kNone));
      WEFT_RETURN_IF_ERROR(encode_stretch(normalized.text, start, sink));
    }
    text.remove_prefix(piece.size());
    start = Start::kNone;
  }
  return {};
}

Status JsonTokenizer::encode_stretch(std::string_view text, Start start,
                                     const SymbolSink& sink) const {
  std::vector<Symbol> symbols;
  return after_.for_each_stretch(text, [&](const Stretch& stretch) -> Status {
    const auto part = text.substr(stretch.begin, stretch.end - stretch.begin);
    if (stretch.id >= 0) {
      const Symbol symbol = {static_cast<int32_t>(stretch.id), static_cast<uint32_t>(part.size())};
      sink({.whole = part, .base = stretch.begin, .added = true, .symbols = {&symbol, 1}});
      return {};
    }
    const auto encode_word = [&](const PreTokenizer::Word& word) -> Status {
      symbols.clear();
      WEFT_RETURN_IF_ERROR(model_->encode(word.text, &symbols));
      sink({.whole = word.whole,
            .base = stretch.begin + word.piece,
            .begin = static_cast<size_t>(word.text.data() - word.whole.data()),
            .shifted = word.shifted,
            .symbols = symbols});
      return {};
    };
    return pre_tokenizer_.for_each_word(part, stretch.begin == 0 ? start : Start::kStretch,
                                        encode_word);
  });
}

Status JsonTokenizer::encode_to(std::string_view text, bool add_special, const IdSink& sink) const {
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
    return encode_pieces(part, stretch.begin == 0 ? Start::kText : Start::kStretch, collect);
  }));
  if (add_special) add(post_.suffix);
  if (!ids.empty()) sink(ids);
  return {};
}

Status JsonTokenizer::encode_word(std::string_view word, const IdSink& sink) const {
  const bool spaced = pre_tokenizer_.adds_prefix_space() || word.starts_with(' ');
  if (!pre_tokenizer_.byte_level() || spaced) return encode_to(word, false, sink);
  return encode_to(" " + std::string(word), false, sink);
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

Result<Encoding> JsonTokenizer::encode_with_offsets(std::string_view text, bool add_special) const {
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
    WEFT_ASSIGN_OR_RETURN(const Normalized normalized, normalizer_.apply(part, true));
    const std::vector<int64_t> points = code_point_of_bytes(normalized.text);
    const int64_t first = whole[stretch.begin];
    const auto origin = [&](int64_t point, bool end) {
      if (normalized.begin.empty()) return first + point + (end ? 1 : 0);
      return first + (end ? normalized.end : normalized.begin)[static_cast<size_t>(point)];
    };
    std::vector<int64_t> piece;  // of the bytes of the run's `whole`
    std::optional<size_t> piece_base;
    const Start start = stretch.begin == 0 ? Start::kText : Start::kStretch;
    return encode_stretch(normalized.text, start, [&](const SymbolRun& run) {
      if (piece_base != run.base) piece = code_point_of_bytes(run.whole);
      piece_base = run.base;
      // A character put in front counts as the one that was first.
      const auto point = [&](size_t byte) {
        return points[run.base] + std::max<int64_t>(piece[byte] - (run.shifted ? 1 : 0), 0);
      };
      size_t at = run.begin;
      for (const Symbol& symbol : run.symbols) {
        const size_t end = at + symbol.bytes;
        add(symbol.id, {origin(point(at), false), origin(point(end - 1), true)},
            run.added ? run.whole : std::string_view(*token_of(symbol.id)));
        if (!symbol.shared) at = end;
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
void JsonTokenizer::trim(std::string_view token, bool first, TokenOffsets* offsets) const {
  int64_t leading = spaces_at(token, false);
  const int64_t trailing = spaces_at(token, true);
  if (leading == 1 && (first || offsets->begin == 0) && post_.add_prefix_space) leading = 0;
  offsets->begin = std::min(offsets->begin + leading, offsets->end);
  if (offsets->end >= trailing) offsets->end = std::max(offsets->end - trailing, offsets->begin);
}

const std::string* JsonTokenizer::token_of(int64_t id) const {
  if (const auto added = added_.find(id); added != added_.end()) return &added->second.written;
  return id >= 0 && id < model_->vocab_size() ? &model_->token(id) : nullptr;
}

std::string JsonTokenizer::decode(std::span<const int64_t> ids,
                                  const DecodeOptions& options) const {
  std::vector<std::string> tokens;
  for (const int64_t id : ids) {
    const auto added = added_.find(id);
    if (options.skip_special && added != added_.end() && added->second.special) continue;
    if (const std::string* token = token_of(id)) tokens.push_back(*token);
  }
  while (options.settled && !tokens.empty() && decoder_.is_open(tokens.back())) tokens.pop_back();
  std::string text = decoder_.decode(std::move(tokens), options.continues);
  if (options.settled) text.resize(settled_bytes(text));
  return text;
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
  const auto parsed_file = parse_strict(json_text);
  if (!parsed_file) {
    // A protobuf whose first field holds SentencePiece's first piece.
    const bool sentencepiece = json_text.size() > 2 && json_text[0] == 10 && json_text[2] == 10;
    if (!sentencepiece) return fail(parsed_file.error());
    return fail(Code::kInvalidArgument,
                "must be a tokenizer.json; there is " + no_tokenizer_json(true));
  }
  const tokenizers::json& file = *parsed_file;
  tokenizers::json config;
  if (!config_text.empty()) {
    ParseLimits limits;
    limits.wide_integers = true;
    auto parsed = parse_strict(config_text, limits);
    if (!parsed) return fail(parsed.error().with_prefix("tokenizer_config.json: "));
    config = std::move(*parsed);
  }
  auto tokenizer = std::make_unique<tokenizers::JsonTokenizer>();
  WEFT_RETURN_IF_ERROR(tokenizer->load(file, config));
  if (tokenizers::is_byte_tokenizer(file)) return make_byte_tokenizer();
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace weft
