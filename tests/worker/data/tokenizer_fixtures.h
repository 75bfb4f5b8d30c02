// The tokenizers and encodings of fixtures/, which the `tokenizers` package made.
// Thread safety: one thread.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "worker/data/tokenizers/tokenizer.h"

namespace weft {

using nlohmann::json;

// The text of a file of fixtures/, and the documents of one that has one a line.
std::string fixture(const std::string& name);
std::vector<json> lines(const std::string& name);

// tokenizer.json: of BPE over characters, as Llama 2's is today, and of BPE at byte level.
const json& character_file();
const json& bpe_file();
// One that has to load; tokenizer_config.json beside it.
std::unique_ptr<Tokenizer> load(const json& file, const std::string& config = {});

// That `expected`, of text, ids, offsets (but where they are meant to differ) and both decoded
// texts, is what the tokenizer gives.
void expect_case(const Tokenizer& tokenizer, const json& expected);

// With a token before and one behind each text.
json with_ends(json file, const char* first, int64_t first_id, const char* last, int64_t last_id);

// Components of tokenizer.json. kind: String or Regex.
json metaspace(const char* scheme, bool split);
json replace(const char* kind, const char* pattern, const char* content);

}  // namespace weft
