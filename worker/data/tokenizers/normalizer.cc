#include "worker/data/tokenizers/normalizer.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "worker/data/tokenizers/characters.h"
#include "worker/data/tokenizers/json_fields.h"
#include "worker/data/tokenizers/metaspace.h"

namespace weft::tokenizers {
namespace {

void copy_with_origin(std::string_view text, int64_t* point, Normalized* result) {
  result->text += text;
  for (int64_t left = count_code_points(text); left > 0; --left, ++*point) {
    result->begin.push_back(*point);
    result->end.push_back(*point + 1);
  }
}

// Comes from the code point in front of `end`; from nothing, where there is none.
void put_with_origin(const std::string& content, int64_t end, Normalized* result) {
  result->text += content;
  const auto points = static_cast<size_t>(count_code_points(content));
  result->begin.insert(result->begin.end(), points, std::max<int64_t>(end - 1, 0));
  result->end.insert(result->end.end(), points, end);
}

Normalized prepend(const std::string& content, std::string_view text, bool with_origin) {
  Normalized result;
  if (!with_origin) {
    result.text.reserve(content.size() + text.size());
    result.text.append(content).append(text);
    return result;
  }
  int64_t point = 0;
  put_with_origin(content, 1, &result);
  copy_with_origin(text, &point, &result);
  return result;
}

Result<Normalized> replace(const Replace& step, std::string_view text, bool with_origin) {
  Normalized result;
  if (!with_origin && step.regex == nullptr) {
    result.text = replaced(text, step.pattern, step.content);
    return result;
  }
  int64_t point = 0;
  const auto add = [&](Match part, bool matched) -> Status {
    const std::string_view old = text.substr(part.begin, part.end - part.begin);
    if (!with_origin) {
      result.text += matched ? std::string_view(step.content) : old;
    } else if (matched) {
      point += count_code_points(old);
      put_with_origin(step.content, point, &result);
    } else {
      copy_with_origin(old, &point, &result);
    }
    return {};
  };
  if (step.regex != nullptr) {
    WEFT_RETURN_IF_ERROR(step.regex->for_each_stretch(text, add));
    return result;
  }
  for (size_t at = 0; at < text.size();) {
    const size_t found = std::min(text.find(step.pattern, at), text.size());
    WEFT_RETURN_IF_ERROR(add({at, found}, false));
    if (found == text.size()) break;
    at = found + step.pattern.size();
    WEFT_RETURN_IF_ERROR(add({found, at}, true));
  }
  return result;
}

Normalized strip(bool start, bool end, std::string_view text, bool with_origin) {
  Normalized result;
  const std::string_view cut = text.substr(0, start ? space_at_start(text) : 0);
  text.remove_prefix(cut.size());
  if (end) text.remove_suffix(space_at_end(text));
  int64_t point = count_code_points(cut);
  if (with_origin) {
    copy_with_origin(text, &point, &result);
  } else {
    result.text = text;
  }
  return result;
}

std::optional<NormalForm> form_named(const json& type) {
  if (type == "NFC") return NormalForm::kNfc;
  if (type == "NFD") return NormalForm::kNfd;
  if (type == "NFKC") return NormalForm::kNfkc;
  if (type == "NFKD") return NormalForm::kNfkd;
  return std::nullopt;
}

}  // namespace

Result<Normalizer> Normalizer::parse(const json& section) {
  Normalizer result;
  if (!section.is_null()) WEFT_RETURN_IF_ERROR(result.add(section, "normalizer", 0));
  return result;
}

Status Normalizer::add(const json& section, const std::string& field, int depth) {
  const json& type = member(section, "type");
  if (type == "Sequence" && depth < 4) return add_sequence(section, field, depth);
  Step step;
  if (const auto form = form_named(type)) {
    WEFT_RETURN_IF_ERROR(check_object(field, section, {"type"}));
    step.form = *form;
  } else if (type == "Precompiled") {
    step.kind = Kind::kCharsmap;
    WEFT_ASSIGN_OR_RETURN(Charsmap charsmap, Charsmap::parse(section, field));
    step.charsmap = std::make_shared<const Charsmap>(std::move(charsmap));
  } else if (type == "Prepend") {
    step.kind = Kind::kPrepend;
    WEFT_RETURN_IF_ERROR(check_object(field, section, {"type", "prepend"}));
    WEFT_ASSIGN_OR_RETURN(step.replace.content, string_at(field, section, "prepend"));
    if (step.replace.content.empty()) {
      return wrong(field + ".prepend", step.replace.content, "must not be empty");
    }
  } else if (type == "Replace") {
    step.kind = Kind::kReplace;
    WEFT_ASSIGN_OR_RETURN(step.replace, parse_replace(section, field));
    if (step.replace.content.empty()) {
      return wrong(field + ".content", step.replace.content, "must not be empty");
    }
  } else if (type == "Strip") {
    step.kind = Kind::kStrip;
    WEFT_RETURN_IF_ERROR(check_object(field, section, {"type", "strip_left", "strip_right"}));
    WEFT_ASSIGN_OR_RETURN(step.strips_start, bool_at(field, section, "strip_left", false));
    WEFT_ASSIGN_OR_RETURN(step.strips_end, bool_at(field, section, "strip_right", false));
  } else if (type == "StripAccents" || type == "Lowercase") {
    step.kind = type == "Lowercase" ? Kind::kLowercase : Kind::kAccents;
    WEFT_RETURN_IF_ERROR(check_object(field, section, {"type"}));
  } else if (type == "BertNormalizer") {
    step.kind = Kind::kBert;
    WEFT_ASSIGN_OR_RETURN(step.bert, parse_bert_normalizer(section, field));
  } else {
    return wrong(
        field + ".type", type,
        "must be NFC, NFD, NFKC, NFKD, Precompiled, Prepend, Replace, Strip, "
        "StripAccents, Lowercase, BertNormalizer or a Sequence of these: no other is supported");
  }
  steps_.push_back(std::move(step));
  return {};
}

Status Normalizer::add_sequence(const json& section, const std::string& field, int depth) {
  WEFT_RETURN_IF_ERROR(check_object(field, section, {"type", "normalizers"}));
  const json& list = member(section, "normalizers");
  if (!list.is_array() || list.size() > 16) {
    return wrong(field + ".normalizers", list, "must be an array of at most 16");
  }
  for (size_t i = 0; i < list.size(); ++i) {
    WEFT_RETURN_IF_ERROR(
        add(list[i], field + ".normalizers[" + std::to_string(i) + "]", depth + 1));
  }
  return {};
}

Result<Normalized> Normalizer::apply_step(const Step& step, std::string_view text,
                                          bool with_origin) {
  if (step.kind == Kind::kForm) return to_normal_form(step.form, text, with_origin);
  if (step.kind == Kind::kCharsmap) return step.charsmap->apply(text, with_origin);
  if (step.kind == Kind::kAccents) return without_accents(text, with_origin);
  if (step.kind == Kind::kLowercase) return lowercased(text, with_origin);
  if (step.kind == Kind::kBert) return step.bert.apply(text, with_origin);
  if (step.kind == Kind::kStrip) {
    return strip(step.strips_start, step.strips_end, text, with_origin);
  }
  if (text.empty()) return Normalized();
  if (step.kind == Kind::kReplace) return replace(step.replace, text, with_origin);
  return prepend(step.replace.content, text, with_origin);
}

bool Normalizer::by_characters() const {
  return std::all_of(steps_.begin(), steps_.end(), [](const Step& step) {
    return step.kind == Kind::kPrepend ||
           (step.kind == Kind::kReplace && step.replace.regex == nullptr &&
            is_one_character(step.replace.pattern));
  });
}

Result<Normalized> Normalizer::apply(std::string_view text, bool with_origin, bool begins) const {
  Normalized result;
  bool changed = false;
  for (const Step& step : steps_) {
    if (step.kind == Kind::kPrepend && !begins) continue;
    WEFT_ASSIGN_OR_RETURN(Normalized next,
                          apply_step(step, changed ? result.text : text, with_origin));
    if (changed) {  // from the step before back to the text
      for (int64_t& begin : next.begin) begin = result.begin[static_cast<size_t>(begin)];
      for (int64_t& end : next.end) end = end == 0 ? 0 : result.end[static_cast<size_t>(end) - 1];
    }
    result = std::move(next);
    changed = true;
  }
  if (!changed) result.text = text;
  return result;
}

}  // namespace weft::tokenizers
