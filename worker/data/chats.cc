#include "worker/data/chats.h"

#include "worker/data/tokenizers/unicode.h"

namespace weft {

Result<RenderedChat> Chats::render(const Document& document) {
  if (!template_) {
    auto found = ChatTemplate::find(files_);
    if (!found) return fail(document.refuse(found.error()));
    if (!*found) return fail(document.refuse(no_chat_template("messages")));
    template_ = std::move(*found);
  }
  auto rendered = render_to_learn(*template_, *document.chat);
  if (!rendered) return fail(document.refuse(rendered.error()));
  return rendered;
}

std::vector<uint8_t> learned_tokens(const RenderedChat& chat,
                                    std::span<const TokenOffsets> offsets) {
  std::vector<TokenOffsets> answers;  // in code points
  size_t counted = 0;
  int64_t code_points = 0;
  const auto place = [&](size_t bytes) {
    const std::string_view more = std::string_view(chat.text).substr(counted, bytes - counted);
    counted = bytes;
    return code_points += tokenizers::count_code_points(more);
  };
  for (const TextSpan& span : chat.answers) {
    const int64_t begin = place(span.begin);
    answers.push_back({begin, place(span.end)});
  }
  std::vector<uint8_t> learned;
  size_t next = 0;
  for (const TokenOffsets& token : offsets) {
    while (next < answers.size() && answers[next].end <= token.begin) ++next;
    learned.push_back(next < answers.size() && token.end > answers[next].begin ? 1 : 0);
  }
  return learned;
}

}  // namespace weft
