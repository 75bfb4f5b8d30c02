// Filters of texts, numbers and single values.
#include <charconv>
#include <cmath>

#include "worker/data/chat/cases.h"
#include "worker/data/chat/filter_table.h"
#include "worker/data/chat/to_json.h"

namespace weft::chat {
namespace {

// The number that a text is, if it is one as a whole, as Python's int() and float() read it.
template <typename Number>
std::optional<Number> parsed(Run& run, std::string_view text) {
  text = stripped(text, Side::kBoth);
  if (text.find('_') != std::string_view::npos || !is_ascii(text)) {
    run.refuse("a number like this is not supported: " + std::string(text.substr(0, 40)));
  }
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  Number number{};
  const auto read = std::from_chars(text.data(), text.data() + text.size(), number);
  if (read.ec == std::errc::result_out_of_range) run.refuse("a number is out of range");
  if (read.ec != std::errc() || read.ptr != text.data() + text.size()) return std::nullopt;
  return number;
}

Value truncated(Run& run, double number) {
  if (std::abs(number) >= 0x1p63) run.refuse("a number is out of range");
  return Value::integer(static_cast<int64_t>(number));
}

Value to_integer(Run& run, const Value& value, Arguments& given) {
  const Value otherwise = given.take_or(run, "default", Value::integer(0));
  if (value.is_undefined()) run.refuse(value.what_is_undefined());
  if (value.is_bool() || value.is_integer()) return Value::integer(value.as_integer());
  std::optional<double> number;
  if (value.is_float()) number = value.as_double();
  if (const std::string* text = value.text_if()) {
    if (const auto whole = parsed<int64_t>(run, *text)) return Value::integer(*whole);
    number = parsed<double>(run, *text);
  }
  return number && std::isfinite(*number) ? truncated(run, *number) : otherwise;
}

Value to_float(Run& run, const Value& value, Arguments& given) {
  const Value otherwise = given.take_or(run, "default", Value::number(0));
  if (value.is_undefined()) run.refuse(value.what_is_undefined());
  if (value.is_number()) return Value::number(value.as_double());
  if (!value.is_text()) return otherwise;
  const auto number = parsed<double>(run, *value.text_if());
  return number ? Value::number(*number) : otherwise;
}

Value absolute(Run& run, const Value& value, Arguments& /*given*/) {
  if (value.is_float()) return Value::number(std::abs(value.as_double()));
  if (!value.is_number() || value.as_integer() == INT64_MIN) run.refuse("abs needs a number");
  return Value::integer(std::abs(value.as_integer()));
}

Value defaulted(Run& run, const Value& value, Arguments& given) {
  const Value otherwise = given.take_or(run, "default_value", Value::text(""));
  const bool untrue = given.take_bool(run, "boolean", false);
  return value.is_undefined() || (untrue && !truth(value)) ? otherwise : value;
}

Value to_string(Run& run, const Value& value, Arguments& /*given*/) {
  return value.is_text() ? value : Value::text(to_text(run, value));
}

Value trim(Run& run, const Value& value, Arguments& given) {
  const Value set = given.take_or(run, "chars", Value());
  if (!set.is_none() && !set.is_text()) run.refuse("what is trimmed must be a str");
  const std::string text = to_text(run, value);
  return Value::text(
      std::string(set.is_none() ? stripped(text, Side::kBoth)
                                : stripped(text, Side::kBoth, std::string_view(*set.text_if()))));
}

template <std::string (*kCase)(std::string)>
Value cased(Run& run, const Value& value, Arguments& /*given*/) {
  std::string text = to_text(run, value);
  need_ascii(run, text, "the case");
  return Value::text(kCase(std::move(text)));
}

Value replace(Run& run, const Value& value, Arguments& given) {
  const Value old = given.need(run, "old"), with = given.need(run, "new");
  const int64_t times = given.take_integer(run, "count").value_or(-1);
  return Value::text(
      replaced(run, to_text(run, value), to_text(run, old), to_text(run, with), times));
}

// A number of spaces, or a text.
std::string indention(Run& run, const Value& width) {
  if (width.is_text()) return *width.text_if();
  if (!width.is_integer() && !width.is_bool()) run.refuse("an indention must be an int or a str");
  const int64_t spaces = std::max<int64_t>(0, width.as_integer());
  run.spend(spaces);
  return std::string(static_cast<size_t>(spaces), ' ');
}

Value indent(Run& run, const Value& value, Arguments& given) {
  const std::string space = indention(run, given.take_or(run, "width", Value::integer(4)));
  const bool first = given.take_bool(run, "first", false);
  const bool blank = given.take_bool(run, "blank", false);
  if (!value.is_text()) run.refuse("indent needs a str");
  const std::string text = *value.text_if() + "\n";
  Text out(run);
  bool begun = false;
  for (const std::string_view line : split_lines(text)) {
    if (begun) out << "\n";
    if (begun ? blank || !line.empty() : first) out << space;
    out << line;
    begun = true;
  }
  return Value::text(out.take());
}

Value tojson(Run& run, const Value& value, Arguments& given) {
  JsonStyle style;
  style.ascii = given.take_bool(run, "ensure_ascii", false);
  const Value space = given.take_or(run, "indent", Value());
  if (!space.is_none()) style.indent = indention(run, space);
  const Value separators = given.take_or(run, "separators", Value());
  if (const ListData* pair = separators.list_if()) {
    if (pair->items.size() != 2 || !pair->items[0].is_text() || !pair->items[1].is_text()) {
      run.refuse("separators must be two texts");
    }
    style.between = *pair->items[0].text_if();
    style.colon = *pair->items[1].text_if();
  } else if (!separators.is_none()) {
    run.refuse("separators must be two texts");
  }
  style.sorted = given.take_bool(run, "sort_keys", false);
  return Value::text(to_json(run, value, style));
}

}  // namespace

const FilterTable& text_filters() {
  static const FilterTable kFilters = {{"abs", absolute},      {"capitalize", cased<capitalized>},
                                       {"d", defaulted},       {"default", defaulted},
                                       {"float", to_float},    {"indent", indent},
                                       {"int", to_integer},    {"lower", cased<lower>},
                                       {"replace", replace},   {"safe", to_string},
                                       {"string", to_string},  {"title", cased<title_filter>},
                                       {"tojson", tojson},     {"trim", trim},
                                       {"upper", cased<upper>}};
  return kFilters;
}

}  // namespace weft::chat
