#include "worker/data/chat/to_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "worker/data/chat/text.h"
#include "worker/data/tokenizers/unicode.h"

namespace weft::chat {
namespace {

class Writer {
 public:
  Writer(Run& run, const JsonStyle& style)
      : run_(run),
        style_(style),
        between_(style.between.value_or(style.indent ? "," : ", ")),
        colon_(style.colon.value_or(": ")),
        out_(run) {}

  void write(const Value& value) {
    run_.spend(1);
    if (const std::string* text = value.text_if()) return write_text(*text);
    if (const ListData* list = value.list_if()) return write_list(*list);
    if (const DictData* dict = value.dict_if()) return write_dict(*dict);
    if (value.is_none()) {
      out_ << "null";
    } else if (value.is_bool()) {
      out_ << (value.as_bool() ? "true" : "false");
    } else if (value.is_integer()) {
      out_ << std::to_string(value.as_integer());
    } else if (value.is_float()) {
      const double number = value.as_double();
      out_ << (std::isnan(number)   ? "NaN"
               : std::isinf(number) ? (number < 0 ? "-Infinity" : "Infinity")
                                    : float_text(number));
    } else {
      run_.refuse(std::string("a ") + value.kind_name() + " is no JSON");
    }
  }

  std::string take() { return out_.take(); }

 private:
  void begin_line() {
    if (!style_.indent) return;
    out_ << "\n";
    for (int i = 0; i < level_; ++i) out_ << *style_.indent;
  }

  void write_list(const ListData& list) {
    if (list.items.empty()) {
      out_ << "[]";
      return;
    }
    out_ << "[";
    ++level_;
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_ << between_;
      begin_line();
      write(list.items[i]);
    }
    --level_;
    begin_line();
    out_ << "]";
  }

  void write_dict(const DictData& dict) {
    if (dict.entries.empty()) {
      out_ << "{}";
      return;
    }
    std::vector<const std::pair<std::string, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sorted)
      std::ranges::sort(entries, {}, [](const auto* entry) { return entry->first; });
    out_ << "{";
    ++level_;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_ << between_;
      begin_line();
      write_text(entries[i]->first);
      out_ << colon_;
      write(entries[i]->second);
    }
    --level_;
    begin_line();
    out_ << "}";
  }

  void write_text(const std::string& text) {
    static constexpr std::string_view kShort = "\"\\\n\r\t\f\b", kLetters = "\"\\nrtfb";
    out_ << "\"";
    for (std::string_view rest = text; !rest.empty();) {
      const std::string_view one = take_character(rest);
      size_t bytes = 0;
      const uint32_t code = tokenizers::code_point_at(one, &bytes);
      const size_t letter = one.size() == 1 ? kShort.find(one.front()) : std::string_view::npos;
      if (letter != std::string_view::npos) {
        out_ << "\\" << kLetters.substr(letter, 1);
      } else if (code < 0x20 || (style_.ascii && code >= 0x7f && code < 0x10000)) {
        out_ << fmt::format("\\u{:04x}", code);
      } else if (style_.ascii && code >= 0x10000) {
        out_ << fmt::format("\\u{:04x}\\u{:04x}", 0xd7c0 + (code >> 10), 0xdc00 + (code & 0x3ffU));
      } else {
        out_ << one;
      }
    }
    out_ << "\"";
  }

  Run& run_;
  const JsonStyle& style_;
  const std::string between_, colon_;
  Text out_;
  int level_ = 0;
};

}  // namespace

std::string to_json(Run& run, const Value& value, const JsonStyle& style) {
  Writer writer(run, style);
  writer.write(value);
  return writer.take();
}

}  // namespace weft::chat
