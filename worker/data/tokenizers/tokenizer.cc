#include "worker/data/tokenizers/tokenizer.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace weft {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFilesOfChats[] = {"tokenizer_config.json", "special_tokens_map.json",
                                         "chat_template.jinja"};

Result<std::string> read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  if (!stream.is_open() || stream.bad() || text.bad()) {
    return fail(Code::kUnavailable, path + ": cannot be read");
  }
  return std::move(text).str();
}

}  // namespace

bool TextTypes::any() const {
  const auto other = [](int64_t type) { return type != 0; };
  return text != 0 || std::ranges::any_of(prefix, other) || std::ranges::any_of(suffix, other);
}

void TextTypes::write(std::span<int64_t> types) const {
  std::ranges::fill(types, text);
  std::ranges::copy(prefix, types.begin());
  std::ranges::copy(suffix, types.end() - std::ssize(suffix));
}

Result<std::vector<int64_t>> Tokenizer::encode(std::string_view text, bool add_special) const {
  std::vector<int64_t> ids;
  WEFT_RETURN_IF_ERROR(encode_to(text, add_special, [&ids](std::span<const int32_t> piece) {
    ids.insert(ids.end(), piece.begin(), piece.end());
  }));
  return ids;
}

Result<std::unique_ptr<Tokenizer>> load_tokenizer_file(const std::string& path) {
  WEFT_ASSIGN_OR_RETURN(const std::string text, read_file(path));
  std::string config;
  std::vector<TokenizerFile> files;
  for (const char* name : kFilesOfChats) {
    const fs::path beside = fs::path(path).parent_path() / name;
    std::error_code ignored;
    if (!fs::is_regular_file(beside, ignored)) continue;
    WEFT_ASSIGN_OR_RETURN(std::string content, read_file(beside.string()));
    if (name == std::string_view("tokenizer_config.json")) config = content;
    files.push_back({name, std::move(content)});
  }
  auto tokenizer = load_tokenizer_json(text, config);
  if (!tokenizer) return fail(tokenizer.error().with_prefix(path + ": "));
  (*tokenizer)->set_files(std::move(files));
  return tokenizer;
}

std::span<const std::string_view> tokenizer_file_names() {
  static constexpr std::array<std::string_view, 9> kNames = {"tokenizer.json",
                                                             "tokenizer_config.json",
                                                             "special_tokens_map.json",
                                                             "added_tokens.json",
                                                             "vocab.json",
                                                             "merges.txt",
                                                             "vocab.txt",
                                                             "chat_template.jinja",
                                                             kSentencePieceFile};
  return kNames;
}

std::string no_tokenizer_json(bool sentencepiece, const std::string& folder) {
  if (!sentencepiece) return "no tokenizer.json";
  return "only SentencePiece's tokenizer.model, no tokenizer.json; convert it: python -c \"from "
         "transformers import AutoTokenizer; AutoTokenizer.from_pretrained('" +
         folder + "').save_pretrained('" + folder +
         "')\" (pip install transformers sentencepiece protobuf)";
}

Result<std::vector<TokenizerFile>> read_tokenizer_files(const std::string& folder) {
  std::vector<TokenizerFile> files;
  for (const std::string_view name : tokenizer_file_names()) {
    const fs::path path = fs::path(folder) / name;
    std::error_code ignored;
    if (!fs::is_regular_file(path, ignored)) continue;
    WEFT_ASSIGN_OR_RETURN(std::string content, read_file(path.string()));
    files.push_back({std::string(name), std::move(content)});
  }
  return files;
}

int64_t tokens_around_target(const Tokenizer& tokenizer) {
  const auto suffix = tokenizer.suffix_ids();
  const std::optional<int64_t> end = tokenizer.eos_id();
  const bool ends = end && (suffix.empty() || suffix.back() != *end);
  return std::ssize(tokenizer.prefix_ids()) + std::ssize(suffix) + (ends ? 1 : 0);
}

}  // namespace weft
