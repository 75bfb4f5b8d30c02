// WordPiece; see word_model.h.
#include <algorithm>

#include "worker/data/tokenizers/json_fields.h"
#include "worker/data/tokenizers/unicode.h"
#include "worker/data/tokenizers/vocabulary.h"
#include "worker/data/tokenizers/word_model.h"

namespace weft::tokenizers {
namespace {

constexpr uint64_t kWordCharactersMost = 1000;  // a word's square is looked up

class WordPiece final : public WordModel {
 public:
  Status load(const json& section);

  int64_t vocab_size() const override { return vocabulary_.size(); }
  std::optional<int64_t> find(std::string_view token) const override {
    return vocabulary_.find(token);
  }
  const std::string& token(int64_t id) const override { return vocabulary_.token(id); }
  std::string_view name() const override { return "word_piece"; }

  Status encode(std::string_view word, std::vector<Symbol>* out) const override;
  bool apart(std::string_view, std::string_view) const override { return false; }

 private:
  // The longest token that `rest` begins with; continues: it is no word's start. No bytes: none.
  Symbol longest(std::string_view rest, bool continues) const;

  Vocabulary vocabulary_;
  std::string prefix_;  // of a token that continues a word
  int32_t unknown_ = 0;
  int64_t characters_max_ = 100;
};

Status WordPiece::load(const json& section) {
  WEFT_RETURN_IF_ERROR(check_object(
      "model", section,
      {"type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"}));
  WEFT_RETURN_IF_ERROR(vocabulary_.load(member(section, "vocab")));
  WEFT_ASSIGN_OR_RETURN(prefix_, string_at("model", section, "continuing_subword_prefix"));
  WEFT_ASSIGN_OR_RETURN(const std::string unknown, string_at("model", section, "unk_token"));
  const auto id = find(unknown);
  if (!id) return wrong("model.unk_token", unknown, "must be a token of the vocabulary");
  unknown_ = static_cast<int32_t>(*id);
  const json& most = member(section, "max_input_chars_per_word");
  if (!most.is_number_unsigned() || most.get<uint64_t>() > kWordCharactersMost) {
    return wrong("model.max_input_chars_per_word", most, "must be an integer in [0, 1000]");
  }
  characters_max_ = most.get<int64_t>();
  return {};
}

Symbol WordPiece::longest(std::string_view rest, bool continues) const {
  std::string token = continues ? prefix_ : std::string();
  const size_t before = token.size();
  token += rest;
  while (token.size() > before) {
    if (const auto id = find(token)) {
      return {static_cast<int32_t>(*id), static_cast<uint32_t>(token.size() - before)};
    }
    token.resize(before + last_start(std::string_view(token).substr(before)));
  }
  return {};
}

Status WordPiece::encode(std::string_view word, std::vector<Symbol>* out) const {
  const size_t first = out->size();
  bool known = count_code_points(word) <= characters_max_;
  for (size_t at = 0; known && at < word.size();) {
    const Symbol symbol = longest(word.substr(at), at > 0);
    known = symbol.bytes > 0;
    at += symbol.bytes;
    out->push_back(symbol);
  }
  if (known) return {};
  out->resize(first);
  out->push_back({unknown_, static_cast<uint32_t>(word.size())});
  return {};
}

}  // namespace

Result<std::shared_ptr<const WordModel>> parse_word_piece(const json& section) {
  auto model = std::make_shared<WordPiece>();
  WEFT_RETURN_IF_ERROR(model->load(section));
  return std::shared_ptr<const WordModel>(std::move(model));
}

Result<std::shared_ptr<const WordModel>> WordModel::parse(const json& section, Alphabet alphabet) {
  const json& type = member(section, "type");
  if (type == "BPE") return parse_bpe(section, alphabet);
  if (alphabet == Alphabet::kCharacters) {
    if (type == "WordPiece") return parse_word_piece(section);
    if (type == "Unigram") return parse_unigram(section);
  }
  return fail(wrong("model.type", type,
                    alphabet == Alphabet::kCharacters
                        ? "must be BPE, WordPiece or Unigram: no other is supported"
                        : "must be BPE with a ByteLevel pre_tokenizer"));
}

}  // namespace weft::tokenizers
