#include "worker/data/check.h"

#include <fmt/format.h>

#include <algorithm>

#include "proto/json/utf8.h"
#include "proto/json/value.h"

namespace weft {

Status check_document(const Document& document, const DatasetOptions& options, bool utf8) {
  const std::string& key = options.source.text_key;
  if (options.kind != SampleKind::kCausalLm && document.chat != nullptr) {
    return document.refuse(key, "a chat", "must be a string: only a causal_lm learns from chats");
  }
  const bool words = is_words(options.kind);
  // What nothing is learned from may be the tokens alone that stand around every text.
  const bool needs_text = !is_stream(options.kind) && !is_images(options.kind) &&
                          options.kind != SampleKind::kSpeech &&
                          options.kind != SampleKind::kUnlabeled;
  if ((words && document.words.empty()) || (needs_text && !words && document.text.empty())) {
    return document.refuse(key, words ? "[]" : "\"\"", "must not be empty");
  }
  const std::string& pair_key = options.source.pair_key;
  for (size_t i = 0; i < document.choices.size(); ++i) {
    if (!document.choices[i].empty()) continue;
    return document.refuse(join_index(pair_key, i), "\"\"", "must not be empty");
  }
  if (!pair_key.empty() && document.choices.empty() && document.pair.empty()) {
    return document.refuse(pair_key, "\"\"", "must not be empty");
  }
  const InputFormat format = options.source.format;
  if (!utf8 || format == InputFormat::kJsonl || format == InputFormat::kAudio) return {};  // JSON
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
                  Labels& labels, Chats* chats) {
  bool any = false;
  const auto visit = [&](const Document& document) -> Status {
    any = any || !document.text.empty() || !document.words.empty() || is_images(options.kind) ||
          document.recording != nullptr;
    WEFT_RETURN_IF_ERROR(check_document(document, options, utf8));
    if (document.chat != nullptr && chats != nullptr) {
      const Result<RenderedChat> rendered = chats->render(document);
      if (!rendered) return rendered.error();
    }
    for (const Label& label : document.labels) {
      if (const Result<int64_t> taken = labels.take(document, label); !taken) return taken.error();
    }
    return {};
  };
  WEFT_RETURN_IF_ERROR(for_each_document(files, options.source, visit));
  if (!any) return Status(Code::kInvalidArgument, "the data is empty: it has no text");
  return {};
}

}  // namespace weft
