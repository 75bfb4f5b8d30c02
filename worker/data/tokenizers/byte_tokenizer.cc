#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "worker/data/tokenizers/byte_alphabet.h"
#include "worker/data/tokenizers/tokenizer.h"
#include "worker/data/tokenizers/unicode.h"

namespace weft {
namespace {

constexpr int64_t kEndOfText = 256;
constexpr std::string_view kEndOfTextName = "<|endoftext|>";

// Special tokens are never found in the text: its bytes stand for themselves.
class ByteTokenizer final : public Tokenizer {
 public:
  ByteTokenizer() {
    eos_id_ = bos_id_ = kEndOfText;
    special_ids_ = {kEndOfText};
  }
  std::string_view type() const override { return "byte"; }
  int64_t vocab_size() const override { return kEndOfText + 1; }

  Result<Encoding> encode_with_offsets(std::string_view text, bool) const override {
    Encoding encoding;
    int64_t code_points = 0;
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      if ((byte & 0xC0U) != 0x80U) ++code_points;  // a sequence starts
      encoding.ids.push_back(byte);
      encoding.offsets.push_back({std::max<int64_t>(code_points - 1, 0), code_points});
    }
    return encoding;
  }

  Status encode_to(std::string_view text, bool, const IdSink& sink) const override {
    std::array<int32_t, 4096> piece;
    while (!text.empty()) {
      const size_t count = std::min(text.size(), piece.size());
      for (size_t i = 0; i < count; ++i) piece[i] = static_cast<unsigned char>(text[i]);
      sink({piece.data(), count});
      text.remove_prefix(count);
    }
    return {};
  }

  std::string decode(std::span<const int64_t> ids, const DecodeOptions& options) const override {
    std::string text;
    for (const int64_t id : ids) {
      if (id >= 0 && id < 256) text += static_cast<char>(id);
      if (id == kEndOfText && !options.skip_special) text += kEndOfTextName;
    }
    if (options.settled) text.resize(tokenizers::settled_bytes(text));
    return text;
  }

  std::span<const int64_t> prefix_ids() const override { return {}; }
  std::span<const int64_t> suffix_ids() const override { return {}; }
};

}  // namespace

std::unique_ptr<Tokenizer> make_byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }

std::string byte_tokenizer_json() {
  using nlohmann::ordered_json;
  ordered_json vocab = ordered_json::object();
  for (uint32_t byte = 0; byte < 256; ++byte) {
    vocab[tokenizers::utf8_of(tokenizers::byte_to_code_point()[byte])] = byte;
  }
  const ordered_json byte_level = {{"type", "ByteLevel"},
                                   {"add_prefix_space", false},
                                   {"trim_offsets", false},
                                   {"use_regex", false}};
  const ordered_json model = {{"type", "BPE"},
                              {"dropout", nullptr},
                              {"unk_token", nullptr},
                              {"continuing_subword_prefix", nullptr},
                              {"end_of_word_suffix", nullptr},
                              {"fuse_unk", false},
                              {"byte_fallback", false},
                              {"ignore_merges", false},
                              {"vocab", vocab},
                              {"merges", ordered_json::array()}};
  const ordered_json end_of_text = {
      {"id", kEndOfText}, {"content", kEndOfTextName}, {"single_word", false}, {"lstrip", false},
      {"rstrip", false},  {"normalized", false},       {"special", true}};
  const ordered_json file = {{"version", "1.0"},
                             {"truncation", nullptr},
                             {"padding", nullptr},
                             {"added_tokens", ordered_json::array({end_of_text})},
                             {"normalizer", nullptr},
                             {"pre_tokenizer", byte_level},
                             {"post_processor", nullptr},
                             {"decoder", byte_level},
                             {"model", model}};
  return file.dump(2) + "\n";
}

std::vector<TokenizerFile> byte_tokenizer_files() {
  using nlohmann::ordered_json;
  ordered_json specials;
  for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
    specials[key] = kEndOfTextName;
  }
  ordered_json config = specials;
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  config["clean_up_tokenization_spaces"] = false;
  return {{"tokenizer.json", byte_tokenizer_json()},
          {"tokenizer_config.json", config.dump(2) + "\n"},
          {"special_tokens_map.json", specials.dump(2) + "\n"}};
}

}  // namespace weft
