#include "worker/data/tokenizers/post_processor.h"

#include <string>

#include "worker/data/tokenizers/json_fields.h"

namespace weft::tokenizers {
namespace {

Status read_special(const std::string& field, const json& piece, const json& specials,
                    int64_t vocab_size, std::vector<int64_t>* ids) {
  WEFT_RETURN_IF_ERROR(check_object(field, piece, {"id", "type_id"}));
  WEFT_ASSIGN_OR_RETURN(const std::string name, string_at(field, piece, "id"));
  const std::string at = "post_processor.special_tokens.\"" + name + "\"";
  const json& entry = member(specials, name.c_str());
  WEFT_RETURN_IF_ERROR(check_object(at, entry, {"id", "ids", "tokens"}));
  const json& list = member(entry, "ids");
  if (!list.is_array() || list.empty()) return wrong(at + ".ids", list, "must be an array of ids");
  for (const json& value : list) {
    WEFT_ASSIGN_OR_RETURN(const int64_t id, id_of(at + ".ids", value));
    if (id >= vocab_size) {
      return wrong(at + ".ids", value, "must be below " + std::to_string(vocab_size));
    }
    ids->push_back(id);
  }
  return {};
}

// Of a piece; absent: 0.
Result<int64_t> read_type(const std::string& field, const json& piece) {
  const json& type = member(piece, "type_id");
  if (type.is_null()) return 0;
  return id_of(field + ".type_id", type);
}

constexpr size_t kPiecesMax = 1024;

Status check_pieces(const std::string& field, const json& pieces) {
  if (!pieces.is_array() || pieces.size() > kPiecesMax) {
    return wrong(field, pieces, "must be an array of at most 1024");
  }
  for (size_t i = 0; i < pieces.size(); ++i) {
    const std::string at = field + "[" + std::to_string(i) + "]";
    WEFT_RETURN_IF_ERROR(check_object(at, pieces[i], {"Sequence", "SpecialToken"}));
    if (pieces[i].size() != 1) return wrong(at, pieces[i], "must be Sequence or SpecialToken");
  }
  return {};
}

Status read_single(const std::string& field, const json& pieces, const json& specials,
                   int64_t vocab_size, PostProcessor* result) {
  WEFT_RETURN_IF_ERROR(check_pieces(field, pieces));
  bool seen = false;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const std::string at = field + "[" + std::to_string(i) + "]";
    if (pieces[i].contains("Sequence")) {
      const json& text = pieces[i].at("Sequence");
      if (seen || member(text, "id") != "A") {
        return wrong(at + ".Sequence", pieces[i], "must be the text, A, once");
      }
      seen = true;
      WEFT_ASSIGN_OR_RETURN(result->types.text, read_type(at + ".Sequence", text));
      continue;
    }
    const json& special = pieces[i].at("SpecialToken");
    std::vector<int64_t>& ids = seen ? result->suffix : result->prefix;
    WEFT_RETURN_IF_ERROR(read_special(at + ".SpecialToken", special, specials, vocab_size, &ids));
    WEFT_ASSIGN_OR_RETURN(const int64_t type, read_type(at + ".SpecialToken", special));
    (seen ? result->types.suffix : result->types.prefix).resize(ids.size(), type);
  }
  return seen ? Status() : wrong(field, pieces, "must hold the text, Sequence A");
}

Status read_pair(const std::string& field, const json& pieces, const json& specials,
                 int64_t vocab_size, std::vector<PairPiece>* pair) {
  if (pieces.is_null() || pieces.empty()) return {};
  WEFT_RETURN_IF_ERROR(check_pieces(field, pieces));
  bool first = false, second = false;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const bool text = pieces[i].contains("Sequence");
    const char* kind = text ? "Sequence" : "SpecialToken";
    const std::string at = field + "[" + std::to_string(i) + "]." + kind;
    const json& piece = pieces[i].at(kind);
    WEFT_RETURN_IF_ERROR(check_object(at, piece, {"id", "type_id"}));
    WEFT_ASSIGN_OR_RETURN(const int64_t type, read_type(at, piece));
    if (!text) {
      std::vector<int64_t> ids;
      WEFT_RETURN_IF_ERROR(read_special(at, piece, specials, vocab_size, &ids));
      for (const int64_t id : ids) pair->push_back({.id = id, .type = type});
      continue;
    }
    const bool is_first = member(piece, "id") == "A";
    bool& seen = is_first ? first : second;
    if (seen || (!is_first && member(piece, "id") != "B")) {
      return wrong(at, piece, "must be the texts, A and B, once each");
    }
    seen = true;
    pair->push_back({.text = is_first ? PairText::kFirst : PairText::kSecond, .type = type});
  }
  return first && second ? Status() : wrong(field, pieces, "must hold both texts, A and B");
}

Status read_template(const std::string& field, const json& section, int64_t vocab_size,
                     PostProcessor* result) {
  WEFT_RETURN_IF_ERROR(check_object(field, section, {"type", "single", "pair", "special_tokens"}));
  const json& specials = member(section, "special_tokens");
  WEFT_RETURN_IF_ERROR(
      read_single(field + ".single", member(section, "single"), specials, vocab_size, result));
  return read_pair(field + ".pair", member(section, "pair"), specials, vocab_size, &result->pair);
}

// BertProcessing and RobertaProcessing: [token, id] of what stands in front and behind.
Status read_end(const std::string& field, const json& section, const char* key, int64_t vocab_size,
                std::vector<int64_t>* ids) {
  const json& pair = member(section, key);
  const std::string at = field + "." + key;
  if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string()) {
    return wrong(at, pair, "must be a token and its id");
  }
  WEFT_ASSIGN_OR_RETURN(const int64_t id, id_of(at, pair[1]));
  if (id >= vocab_size) return wrong(at, pair, "must be below " + std::to_string(vocab_size));
  ids->push_back(id);
  return {};
}

// RoBERTa separates by two tokens and tells its texts apart by nothing else.
std::vector<PairPiece> pair_between(int64_t start, int64_t separator, bool roberta) {
  const int64_t type = roberta ? 0 : 1;
  std::vector<PairPiece> pair{{.id = start}, {.text = PairText::kFirst}, {.id = separator}};
  if (roberta) pair.push_back({.id = separator});
  pair.push_back({.text = PairText::kSecond, .type = type});
  pair.push_back({.id = separator, .type = type});
  return pair;
}

Status read(const std::string& field, const json& section, int64_t vocab_size, bool nested,
            PostProcessor* result) {
  const json& type = member(section, "type");
  if (type == "ByteLevel") {
    WEFT_RETURN_IF_ERROR(
        check_object(field, section, {"type", "add_prefix_space", "trim_offsets", "use_regex"}));
    WEFT_ASSIGN_OR_RETURN(result->trim_offsets, bool_at(field, section, "trim_offsets", true));
    WEFT_ASSIGN_OR_RETURN(result->add_prefix_space,
                          bool_at(field, section, "add_prefix_space", true));
    return {};
  }
  const bool roberta = type == "RobertaProcessing";
  if (roberta || type == "BertProcessing") {
    if (!result->prefix.empty() || !result->suffix.empty()) {
      return wrong(field + ".type", type, "must not stand in a Sequence with another");
    }
    if (roberta) {
      WEFT_RETURN_IF_ERROR(
          check_object(field, section, {"type", "sep", "cls", "trim_offsets", "add_prefix_space"}));
      WEFT_ASSIGN_OR_RETURN(result->trim_offsets, bool_at(field, section, "trim_offsets", true));
      WEFT_ASSIGN_OR_RETURN(result->add_prefix_space,
                            bool_at(field, section, "add_prefix_space", true));
    } else {
      WEFT_RETURN_IF_ERROR(check_object(field, section, {"type", "sep", "cls"}));
    }
    WEFT_RETURN_IF_ERROR(read_end(field, section, "cls", vocab_size, &result->prefix));
    WEFT_RETURN_IF_ERROR(read_end(field, section, "sep", vocab_size, &result->suffix));
    result->pair = pair_between(result->prefix.front(), result->suffix.front(), roberta);
    return {};
  }
  if (type == "TemplateProcessing") {
    if (!result->prefix.empty() || !result->suffix.empty()) {
      return wrong(field + ".type", type, "must not stand in a Sequence twice");
    }
    return read_template(field, section, vocab_size, result);
  }
  if (type == "Sequence" && !nested) {
    WEFT_RETURN_IF_ERROR(check_object(field, section, {"type", "processors"}));
    const json& list = member(section, "processors");
    if (!list.is_array() || list.size() > 16) {
      return wrong(field + ".processors", list, "must be an array of at most 16");
    }
    for (size_t i = 0; i < list.size(); ++i) {
      WEFT_RETURN_IF_ERROR(read(field + ".processors[" + std::to_string(i) + "]", list[i],
                                vocab_size, true, result));
    }
    return {};
  }
  return wrong(
      field + ".type", type,
      "must be ByteLevel, TemplateProcessing, BertProcessing, RobertaProcessing or a Sequence "
      "of these: no other is supported");
}

}  // namespace

Result<PostProcessor> parse_post_processor(const json& section, int64_t vocab_size) {
  PostProcessor result;
  if (section.is_null()) return result;
  WEFT_RETURN_IF_ERROR(read("post_processor", section, vocab_size, false, &result));
  return result;
}

}  // namespace weft::tokenizers
