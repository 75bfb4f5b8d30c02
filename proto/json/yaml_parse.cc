#include <libfyaml.h>

#include <memory>

#include "proto/json/builder.h"
#include "proto/json/utf8.h"
#include "proto/json/yaml.h"
#include "proto/json/yaml_scalar.h"

namespace weft {
namespace {

struct DiagFree {
  void operator()(fy_diag* diag) const { fy_diag_destroy(diag); }
};
struct ParserFree {
  void operator()(fy_parser* parser) const { fy_parser_destroy(parser); }
};

Status not_yaml(std::string_view detail, int line) {
  Status status(Code::kInvalidArgument, "not valid YAML: " + shortened(detail, 200));
  return status.with_rule("must be valid YAML 1.2").with_line(line);
}

// The first error that libfyaml collected.
Status collected_error(fy_diag* diag, int line_fallback) {
  void* iterator = nullptr;
  while (fy_diag_error* error = fy_diag_errors_iterate(diag, &iterator)) {
    if (error->type == FYET_ERROR && error->msg != nullptr) {
      return not_yaml(error->msg, error->line > 0 ? error->line : line_fallback);
    }
  }
  return not_yaml("it cannot be parsed", line_fallback);
}

std::string text_of(fy_token* token) {
  size_t length = 0;
  const char* text = token == nullptr ? nullptr : fy_token_get_text(token, &length);
  return text == nullptr ? std::string() : std::string(text, length);
}

// One document's events, fed to the builder.
class EventReader {
 public:
  explicit EventReader(int depth_max) : builder_(depth_max) {}

  // False: status() says why reading must stop.
  bool take(fy_event* event) {
    if (const fy_mark* mark = fy_event_start_mark(event)) line_ = mark->line + 1;
    switch (event->type) {
      case FYET_DOCUMENT_START:
        return ++documents_ == 1 || refuse("has a second document");
      case FYET_MAPPING_START:
        return start(event, JsonValue::Kind::kObject);
      case FYET_SEQUENCE_START:
        return start(event, JsonValue::Kind::kArray);
      case FYET_MAPPING_END:
      case FYET_SEQUENCE_END:
        return builder_.end();
      case FYET_SCALAR:
        return scalar(event);
      case FYET_ALIAS:
        return refuse(builder_.expects_key() ? "has a key that is an alias (*name); write it out"
                                             : "is an alias (*name); write the value out");
      default:
        return true;
    }
  }

  int line() const { return line_; }
  int documents() const { return documents_; }
  const Status& status() const { return builder_.status(); }
  JsonValue take_value() { return builder_.take(); }

 private:
  bool refuse(std::string rule) { return builder_.refuse("", std::move(rule), line_); }

  bool decorated(fy_event* event) {
    if (fy_event_get_anchor_token(event) != nullptr) {
      return !refuse(builder_.expects_key()
                         ? "has a key with an anchor (&name); write each key and value out"
                         : "has an anchor (&name); write each value out");
    }
    if (fy_event_get_tag_token(event) != nullptr) return !refuse("has a tag (!name); leave it out");
    return false;
  }

  bool start(fy_event* event, JsonValue::Kind kind) {
    if (builder_.expects_key()) return refuse("has a key that is not a scalar");
    return !decorated(event) && builder_.start(kind, line_);
  }

  bool scalar(fy_event* event) {
    if (decorated(event)) return false;
    fy_token* token = event->scalar.value;
    std::string text = text_of(token);
    bool plain = token == nullptr || fy_token_scalar_style(token) == FYSS_PLAIN;
    if (builder_.expects_key()) {
      if (plain && text.empty()) return refuse("has an empty key");
      return builder_.key(std::move(text), line_);
    }
    std::string wrong;
    JsonValue value = plain ? resolve_plain_scalar(text, &wrong) : string_value(text);
    if (!wrong.empty()) return builder_.refuse(shortened(text), wrong, line_);
    value.line = line_;
    return builder_.scalar(std::move(value));
  }

  ValueBuilder builder_;
  int line_ = 1;
  int documents_ = 0;
};

int line_of_offset(std::string_view text, size_t offset) {
  int line = 1;
  for (char c : text.substr(0, offset)) line += c == '\n';
  return line;
}

Status check_bytes(std::string_view text, const ParseLimits& limits) {
  if (text.size() > limits.bytes_max) {
    return Status(Code::kResourceExhausted, "the document is too large")
        .with_value(std::to_string(text.size()) + " bytes")
        .with_rule("must be at most " + std::to_string(limits.bytes_max) + " bytes");
  }
  size_t bad = utf8_first_invalid(text);
  if (bad == std::string_view::npos) bad = text.find('\0');
  if (bad == std::string_view::npos) return {};
  return not_yaml("byte " + std::to_string(bad) + " is not valid UTF-8 text",
                  line_of_offset(text, bad));
}

}  // namespace

Result<JsonValue> parse_yaml(std::string_view text, const ParseLimits& limits) {
  WEFT_RETURN_IF_ERROR(check_bytes(text, limits));
  size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return fail(not_yaml("the document is empty", 1));
  if (text[first] == '{' || text[first] == '[') {
    // JSON's escapes and tabs are not all YAML's.
    if (Result<JsonValue> json = parse_json(text, limits)) return json;
  }
  fy_diag_cfg diag_config;
  fy_diag_cfg_default(&diag_config);
  diag_config.fp = nullptr;
  diag_config.output_fn = [](fy_diag*, void*, const char*, size_t) {};
  std::unique_ptr<fy_diag, DiagFree> diag(fy_diag_create(&diag_config));
  if (!diag) return fail(Code::kResourceExhausted, "no memory for the YAML parser");
  fy_diag_set_collect_errors(diag.get(), true);
  fy_parse_cfg config = {};
  config.flags =
      static_cast<fy_parse_cfg_flags>(FYPCF_QUIET | FYPCF_DEFAULT_VERSION_1_2 | FYPCF_JSON_NONE);
  config.diag = diag.get();
  std::unique_ptr<fy_parser, ParserFree> parser(fy_parser_create(&config));
  if (!parser || fy_parser_set_string(parser.get(), text.data(), text.size()) != 0) {
    return fail(Code::kResourceExhausted, "no memory for the YAML parser");
  }
  EventReader reader(limits.depth_max);
  bool ended = false;
  while (fy_event* event = fy_parser_parse(parser.get())) {
    ended = event->type == FYET_STREAM_END;
    bool taken = reader.take(event);
    fy_parser_event_free(parser.get(), event);
    if (!taken) return fail(reader.status());
  }
  if (!ended) return fail(collected_error(diag.get(), reader.line()));
  if (reader.documents() == 0) return fail(not_yaml("the document is empty", 1));
  return reader.take_value();
}

}  // namespace weft
