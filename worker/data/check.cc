#include "worker/data/check.h"

#include <fmt/format.h>

#include <algorithm>

#include "proto/json/utf8.h"

namespace weft {

Status check_document(const Document& document, const DatasetOptions& options, bool utf8) {
  const std::string& key = options.source.text_key;
  if (options.kind != SampleKind::kCausalLm && document.text.empty()) {
    return document.refuse(key, "\"\"", "must not be empty: it is to be classified");
  }
  if (!utf8 || options.source.format == InputFormat::kJsonl) return {};  // JSON is UTF-8
  const size_t invalid = utf8_first_invalid(document.text);
  if (invalid == std::string_view::npos) return {};
  Document at = document;
  at.line = 1 + std::ranges::count(document.text.substr(0, invalid), '\n');
  return at.refuse("text",
                   fmt::format("byte 0x{:02x}", static_cast<unsigned char>(document.text[invalid])),
                   "must be valid UTF-8, which a tokenizer.json needs; convert it (training with "
                   "tokenizer.type byte takes any bytes)");
}

Status check_data(const std::vector<SourceFile>& files, const DatasetOptions& options, bool utf8,
                  Labels& labels) {
  const bool classifies = options.kind == SampleKind::kClassification;
  bool any = false;
  const auto visit = [&](const Document& document) -> Status {
    any = any || !document.text.empty();
    WEFT_RETURN_IF_ERROR(check_document(document, options, utf8));
    if (!classifies) return {};
    const Result<int64_t> label = labels.take(document);
    return label ? Status() : label.error();
  };
  WEFT_RETURN_IF_ERROR(for_each_document(files, options.source, visit));
  if (!any) return Status(Code::kInvalidArgument, "the data is empty: it has no text");
  return {};
}

}  // namespace weft
