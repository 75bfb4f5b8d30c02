#include "proto/json/rule_text.h"

#include "proto/json/writer.h"
#include "proto/options.pb.h"

namespace weft {

std::string plain_number(double value) { return format_double(value, false); }

std::string bounds_text(const proto::FieldRule& rule, std::string_view what) {
  std::string text = what.empty() ? "must be " : "must have ";
  if (rule.has_min() && rule.has_max()) {
    text += rule.min() == rule.max()
                ? "exactly " + plain_number(rule.min())
                : "between " + plain_number(rule.min()) + " and " + plain_number(rule.max());
  } else {
    std::string lower;
    std::string upper;
    if (rule.has_min()) lower = "at least " + plain_number(rule.min());
    if (rule.has_above()) lower = "above " + plain_number(rule.above());
    if (rule.has_max()) upper = "at most " + plain_number(rule.max());
    if (rule.has_below()) upper = "below " + plain_number(rule.below());
    text += lower + (lower.empty() || upper.empty() ? "" : " and ") + upper;
  }
  if (!what.empty()) text += " " + std::string(what);
  return text;
}

std::string bounds_short(const proto::FieldRule& rule) {
  if (rule.has_min() && rule.has_max()) {
    if (rule.min() == rule.max()) return "exactly " + plain_number(rule.min());
    return plain_number(rule.min()) + " to " + plain_number(rule.max());
  }
  std::string text;
  auto add = [&](bool has, std::string_view word, double value) {
    if (!has) return;
    if (!text.empty()) text += ", ";
    text += std::string(word) + " " + plain_number(value);
  };
  add(rule.has_above(), "above", rule.above());
  add(rule.has_min(), "at least", rule.min());
  add(rule.has_below(), "below", rule.below());
  add(rule.has_max(), "at most", rule.max());
  return text;
}

}  // namespace weft
