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

Status read_template(const std::string& field, const json& section, int64_t vocab_size,
                     PostProcessor* result) {
  WEFT_RETURN_IF_ERROR(check_object(field, section, {"type", "single", "pair", "special_tokens"}));
  const json& single = member(section, "single");
  if (!single.is_array() || single.size() > 1024) {
    return wrong(field + ".single", single, "must be an array of at most 1024");
  }
  bool seen = false;
  for (size_t i = 0; i < single.size(); ++i) {
    const std::string at = field + ".single[" + std::to_string(i) + "]";
    WEFT_RETURN_IF_ERROR(check_object(at, single[i], {"Sequence", "SpecialToken"}));
    if (single[i].size() != 1) return wrong(at, single[i], "must be Sequence or SpecialToken");
    if (single[i].contains("Sequence")) {
      if (seen || member(single[i].at("Sequence"), "id") != "A") {
        return wrong(at + ".Sequence", single[i], "must be the text, A, once");
      }
      seen = true;
      continue;
    }
    WEFT_RETURN_IF_ERROR(read_special(at + ".SpecialToken", single[i].at("SpecialToken"),
                                      member(section, "special_tokens"), vocab_size,
                                      seen ? &result->suffix : &result->prefix));
  }
  return seen ? Status() : wrong(field + ".single", single, "must hold the text, Sequence A");
}

// BertProcessing and RobertaProcessing: [token, id] of what stands in front and behind.
Status read_pair(const std::string& field, const json& section, const char* key, int64_t vocab_size,
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
    WEFT_RETURN_IF_ERROR(read_pair(field, section, "cls", vocab_size, &result->prefix));
    return read_pair(field, section, "sep", vocab_size, &result->suffix);
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
