// weft-tokenize TOKENIZER.JSON: the tokenizer under test, for comparisons from outside. Reads JSON
// lines {"text": ...} and writes for each {"ids", "offsets", "plain_ids", "decoded",
// "decoded_with_special"}: ids with and without what the post-processor puts around the text;
// offsets in code points. A text that is refused gives {"error": ...}. A line {"ids": [...]} gives
// {"decoded", "decoded_with_special", "continued", "streamed"}: continued, as ids that stand behind
// others; streamed, id by id.
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "proto/json/parse.h"
#include "proto/json/writer.h"
#include "worker/data/tokenizers/tokenizer.h"

namespace weft {
namespace {

void write_ids(JsonWriter& json, const char* key, std::span<const int64_t> ids) {
  json.key(key).begin_array();
  for (const int64_t id : ids) json.integer(id);
  json.end_array();
}

std::string streamed(const Tokenizer& tokenizer, std::span<const int64_t> ids) {
  std::string text;
  for (size_t count = 0; count <= ids.size(); ++count) {
    const bool settled = count < ids.size();
    const std::string now =
        tokenizer.decode(ids.first(count), {.skip_special = true, .settled = settled});
    if (now.size() > text.size()) text += now.substr(text.size());
  }
  return text;
}

std::string decoded(const Tokenizer& tokenizer, const std::vector<int64_t>& ids) {
  JsonWriter json;
  json.begin_object();
  json.key("decoded").string(tokenizer.decode(ids, {.skip_special = true}));
  json.key("decoded_with_special").string(tokenizer.decode(ids, {}));
  json.key("continued").string(tokenizer.decode(ids, {.skip_special = true, .continues = true}));
  json.key("streamed").string(streamed(tokenizer, ids));
  json.end_object();
  return json.take();
}

Result<std::string> answer(const Tokenizer& tokenizer, const std::string& line) {
  WEFT_ASSIGN_OR_RETURN(const nlohmann::json request, parse_strict(line));
  if (request.is_object() && request.contains("ids") && request["ids"].is_array()) {
    return decoded(tokenizer, request["ids"].get<std::vector<int64_t>>());
  }
  if (!request.is_object() || !request.contains("text") || !request["text"].is_string()) {
    return fail(Code::kInvalidArgument, "a line has to be {\"text\": \"...\"} or {\"ids\": [...]}");
  }
  const auto text = request["text"].get<std::string>();
  JsonWriter json;
  json.begin_object();
  const Result<Encoding> encoding = tokenizer.encode_with_offsets(text, true);
  if (!encoding) {
    json.key("error").string(encoding.error().to_string()).end_object();
    return json.take();
  }
  WEFT_ASSIGN_OR_RETURN(const std::vector<int64_t> plain, tokenizer.encode(text, false));
  write_ids(json, "ids", encoding->ids);
  json.key("offsets").begin_array();
  for (const TokenOffsets& token : encoding->offsets) {
    json.begin_array().integer(token.begin).integer(token.end).end_array();
  }
  json.end_array();
  write_ids(json, "plain_ids", plain);
  json.key("decoded").string(tokenizer.decode(encoding->ids, {.skip_special = true}));
  json.key("decoded_with_special").string(tokenizer.decode(encoding->ids, {}));
  json.end_object();
  return json.take();
}

int run(const std::string& path) {
  const Result<std::unique_ptr<Tokenizer>> tokenizer = load_tokenizer_file(path);
  if (!tokenizer) {
    std::cerr << "weft-tokenize: " << tokenizer.error().to_string() << "\n";
    return 1;
  }
  std::ios::sync_with_stdio(false);
  for (std::string line; std::getline(std::cin, line);) {
    const Result<std::string> result = answer(**tokenizer, line);
    if (!result) {
      std::cerr << "weft-tokenize: " << result.error().to_string() << "\n";
      return 1;
    }
    std::cout << *result << "\n";
  }
  return 0;
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: weft-tokenize TOKENIZER.JSON <lines >answers\n";
    return 2;
  }
  return weft::run(argv[1]);
}
