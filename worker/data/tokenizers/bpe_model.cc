// BPE; see word_model.h.
#include <bit>
#include <map>
#include <mutex>
#include <queue>
#include <unordered_map>

#include "worker/data/tokenizers/byte_alphabet.h"
#include "worker/data/tokenizers/json_fields.h"
#include "worker/data/tokenizers/unicode.h"
#include "worker/data/tokenizers/vocabulary.h"
#include "worker/data/tokenizers/word_model.h"

namespace weft::tokenizers {
namespace {

constexpr size_t kCachedWordsMax = 65536;
constexpr size_t kCachedWordBytesMax = 64;
constexpr size_t kWordBytesMax = size_t{16} << 20;

struct Merge {
  uint64_t pair = kNone;
  uint32_t rank = 0;
  int32_t joined = 0;
  static constexpr uint64_t kNone = ~uint64_t{0};
};

uint64_t pair_of(int64_t left, int64_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint64_t>(right);
}

// Open addressing, at most half full.
class MergeTable {
 public:
  explicit MergeTable(size_t merges) : slots_(std::bit_ceil(2 * merges + 2)) {}
  void set(uint64_t pair, uint32_t rank, int32_t joined) { slot(pair) = {pair, rank, joined}; }
  const Merge* find(uint64_t pair) const {
    const Merge& found = const_cast<MergeTable*>(this)->slot(pair);
    return found.pair == pair ? &found : nullptr;
  }

 private:
  Merge& slot(uint64_t pair) {
    size_t at = (pair * 0x9E3779B97F4A7C15U >> 20) & (slots_.size() - 1);
    while (slots_[at].pair != Merge::kNone && slots_[at].pair != pair) {
      at = (at + 1) & (slots_.size() - 1);
    }
    return slots_[at];
  }
  std::vector<Merge> slots_;
};

struct Node {
  Symbol symbol;
  int32_t previous = -1, next = -1;
};

struct Candidate {
  uint32_t rank;
  int32_t left;
  uint64_t pair;
  int32_t joined;
  bool operator<(const Candidate& other) const {  // the queue's top is the lowest
    return std::pair(rank, left) > std::pair(other.rank, other.left);
  }
};

class Bpe final : public WordModel {
 public:
  explicit Bpe(Alphabet alphabet) : alphabet_(alphabet) {}
  Status load(const json& section);

  int64_t vocab_size() const override { return vocabulary_.size(); }
  std::optional<int64_t> find(std::string_view token) const override {
    return vocabulary_.find(token);
  }
  const std::string& token(int64_t id) const override { return vocabulary_.token(id); }
  std::string_view name() const override { return "bpe"; }

  Status encode(std::string_view word, std::vector<Symbol>* out) const override;
  bool apart(std::string_view before, std::string_view after) const override;

 private:
  // A byte or a character; id -1: the vocabulary lacks it.
  struct Letter {
    int32_t id = -1;
    uint32_t bytes = 1;
  };
  Letter letter_at(std::string_view text) const;
  bool apart(Letter left, Letter right) const;
  int32_t outer_letter(std::string_view token, bool first) const;

  void load_letters(bool fallback);
  Status load_merges(const json& merges);
  Status add_merge(const std::string& field, const std::string& left, const std::string& right,
                   uint32_t rank);
  const int32_t* whole_word(std::string_view word) const;
  Status encode_cut(std::string_view word, std::vector<Symbol>* out) const;
  Status encode_cached(std::string_view word, std::vector<Symbol>* out) const;
  Status encode_uncached(std::string_view word, std::vector<Symbol>* out) const;
  bool add_bytes(std::string_view letter, std::vector<Node>* nodes) const;
  Status lacks(std::string_view letter) const;
  Status first_symbols(std::string_view word, std::vector<Node>* nodes) const;
  void join(std::vector<Node>* nodes) const;

  Vocabulary vocabulary_;
  Alphabet alphabet_;
  // Of each byte; -1: the vocabulary lacks it. Of characters: those that bytes fall back to.
  ByteTokens byte_ids_ = {};
  std::vector<int32_t> character_ids_;  // by code point; -1, or beyond the end: lacking
  StringMap<int32_t> whole_words_;      // raw bytes -> id, for ignore_merges
  MergeTable merges_{0};
  MergeTable joints_{0};  // letters between which a merge joins two tokens
  std::optional<int32_t> unknown_;
  bool fuse_unknown_ = false, ignore_merges_ = false;

  mutable std::mutex mutex_;  // guards cache_
  mutable StringMap<std::vector<Symbol>> cache_;
};

Status Bpe::load(const json& section) {
  WEFT_RETURN_IF_ERROR(check_object(
      "model", section,
      {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
       "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"}));
  const json& dropout = member(section, "dropout");
  if (!dropout.is_null() && dropout != 0.0) {
    return wrong("model.dropout", dropout, "must be null: random merges are not supported");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json& affix = member(section, key);
    if (!affix.is_null() && affix != "") {
      return wrong(std::string("model.") + key, affix, "must be null: no affix is supported");
    }
  }
  WEFT_ASSIGN_OR_RETURN(const bool fallback, bool_at("model", section, "byte_fallback", false));
  if (fallback && alphabet_ == Alphabet::kBytes) {
    return wrong("model.byte_fallback", true,
                 "must be false with a ByteLevel pre_tokenizer, which leaves only bytes");
  }
  WEFT_ASSIGN_OR_RETURN(fuse_unknown_, bool_at("model", section, "fuse_unk", false));
  WEFT_ASSIGN_OR_RETURN(ignore_merges_, bool_at("model", section, "ignore_merges", false));
  WEFT_RETURN_IF_ERROR(vocabulary_.load(member(section, "vocab")));
  load_letters(fallback);
  const json& unknown = member(section, "unk_token");
  if (!unknown.is_null()) {
    if (!unknown.is_string() || !find(unknown.get<std::string>())) {
      return wrong("model.unk_token", unknown, "must be a token of the vocabulary, or null");
    }
    unknown_ = static_cast<int32_t>(*find(unknown.get<std::string>()));
  }
  return load_merges(member(section, "merges"));
}

void Bpe::load_letters(bool fallback) {
  byte_ids_.fill(-1);
  const auto id_of_token = [this](const std::string& token) {
    return static_cast<int32_t>(find(token).value_or(-1));
  };
  if (alphabet_ == Alphabet::kBytes) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      byte_ids_[byte] = id_of_token(utf8_of(byte_to_code_point()[byte]));
    }
    if (!ignore_merges_) return;
    for (const auto& [token, id] : vocabulary_.ids()) {
      if (auto raw = raw_bytes(token)) whole_words_.emplace(std::move(*raw), id);
    }
    return;
  }
  if (fallback) byte_ids_ = vocabulary_.byte_tokens();
  for (const auto& [token, id] : vocabulary_.ids()) {
    if (token.size() > 4) continue;
    size_t bytes = token.size() + 1;
    const uint32_t code_point = token.empty() ? 0 : code_point_at(token, &bytes);
    if (bytes != token.size()) continue;
    if (code_point >= character_ids_.size()) character_ids_.resize(code_point + 1, -1);
    character_ids_[code_point] = id;
  }
}

Bpe::Letter Bpe::letter_at(std::string_view text) const {
  if (alphabet_ == Alphabet::kBytes) return {byte_ids_[static_cast<unsigned char>(text[0])], 1};
  size_t bytes = 0;
  const uint32_t code_point = code_point_at(text, &bytes);
  const bool known = code_point < character_ids_.size();
  return {known ? character_ids_[code_point] : -1, static_cast<uint32_t>(bytes)};
}

Status Bpe::load_merges(const json& merges) {
  if (!merges.is_array()) return wrong("model.merges", merges, "must be an array");
  merges_ = MergeTable(merges.size());
  joints_ = MergeTable(merges.size());
  uint32_t rank = 0;
  for (size_t i = 0; i < merges.size(); ++i) {
    const json& entry = merges[i];
    const std::string field = "model.merges[" + std::to_string(i) + "]";
    if (entry.is_string()) {
      const auto& text = entry.get_ref<const std::string&>();
      if (text.starts_with("#version")) continue;
      const size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
        return wrong(field, entry, "must be two tokens with one space between");
      }
      WEFT_RETURN_IF_ERROR(add_merge(field, text.substr(0, space), text.substr(space + 1), rank));
    } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() &&
               entry[1].is_string()) {
      WEFT_RETURN_IF_ERROR(
          add_merge(field, entry[0].get<std::string>(), entry[1].get<std::string>(), rank));
    } else {
      return wrong(field, entry, "must be two tokens");
    }
    ++rank;
  }
  return {};
}

Status Bpe::add_merge(const std::string& field, const std::string& left, const std::string& right,
                      uint32_t rank) {
  const auto a = find(left), b = find(right), joined = find(left + right);
  if (!a || !b || !joined) {
    return wrong(field, !a ? left : !b ? right : left + right, "is no token of the vocabulary");
  }
  merges_.set(pair_of(*a, *b), rank, static_cast<int32_t>(*joined));
  const int32_t last = outer_letter(left, false), first = outer_letter(right, true);
  if (last >= 0 && first >= 0) joints_.set(pair_of(last, first), 0, 0);
  return {};
}

// The first or last letter of a token, as the vocabulary writes it; -1: lacking.
int32_t Bpe::outer_letter(std::string_view token, bool first) const {
  if (token.empty()) return -1;
  if (!first) token.remove_prefix(last_start(token));
  size_t bytes = 0;
  const uint32_t code_point = code_point_at(token, &bytes);
  if (alphabet_ == Alphabet::kCharacters) return letter_at(token).id;
  const int byte = code_point_to_byte(code_point);
  return byte < 0 ? -1 : byte_ids_[static_cast<size_t>(byte)];
}

Status Bpe::lacks(std::string_view letter) const {
  std::string name;
  if (alphabet_ == Alphabet::kBytes) {
    name = "byte " + std::to_string(static_cast<unsigned char>(letter[0]));
  } else {
    name = "character " + code_point_name(letter);
  }
  return Status(Code::kInvalidArgument,
                "the tokenizer's vocabulary lacks the " + name + " and has no unk_token for it");
}

// The tokens of the letter's bytes; false: the vocabulary lacks one.
bool Bpe::add_bytes(std::string_view letter, std::vector<Node>* nodes) const {
  if (alphabet_ == Alphabet::kBytes) return false;
  for (const char c : letter) {
    if (byte_ids_[static_cast<unsigned char>(c)] < 0) return false;
  }
  for (const char c : letter) {
    nodes->push_back({{byte_ids_[static_cast<unsigned char>(c)], 1}});
  }
  return true;
}

// As merge_word of the `tokenizers` package, which puts an unknown token behind the bytes of the
// letters that follow it.
Status Bpe::first_symbols(std::string_view word, std::vector<Node>* nodes) const {
  uint32_t unknown = 0;  // bytes of the pending unknown token; 0: none
  const auto add = [nodes](int32_t id, uint32_t bytes) { nodes->push_back({{id, bytes}}); };
  const auto add_unknown = [&] {
    if (unknown > 0) add(*unknown_, unknown);
    unknown = 0;
  };
  for (size_t at = 0; at < word.size();) {
    const Letter letter = letter_at(word.substr(at));
    const std::string_view text = word.substr(at, letter.bytes);
    at += letter.bytes;
    if (letter.id >= 0) {
      add_unknown();
      add(letter.id, letter.bytes);
      continue;
    }
    if (add_bytes(text, nodes)) continue;
    if (!unknown_) return lacks(text);
    if (!fuse_unknown_) add_unknown();
    unknown += letter.bytes;
  }
  add_unknown();
  for (size_t i = 0; i < nodes->size(); ++i) {
    (*nodes)[i].previous = static_cast<int32_t>(i) - 1;
    if (i + 1 < nodes->size()) (*nodes)[i].next = static_cast<int32_t>(i) + 1;
  }
  return {};
}

void Bpe::join(std::vector<Node>* nodes) const {
  std::vector<Node>& list = *nodes;
  std::priority_queue<Candidate> queue;
  const auto at = [&list](int32_t index) -> Node& { return list[static_cast<size_t>(index)]; };
  const auto offer = [&](int32_t left) {
    if (left < 0 || at(left).next < 0) return;
    const uint64_t pair = pair_of(at(left).symbol.id, at(at(left).next).symbol.id);
    if (const Merge* merge = merges_.find(pair)) {
      queue.push({merge->rank, left, pair, merge->joined});
    }
  };
  for (size_t i = 0; i + 1 < list.size(); ++i) offer(static_cast<int32_t>(i));
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Node& left = at(best.left);
    // A candidate whose tokens have gone or changed since is out of date.
    if (left.symbol.bytes == 0 || left.next < 0) continue;
    Node& right = at(left.next);
    if (pair_of(left.symbol.id, right.symbol.id) != best.pair) continue;
    left.symbol = {best.joined, left.symbol.bytes + right.symbol.bytes};
    right.symbol.bytes = 0;
    left.next = right.next;
    if (left.next >= 0) at(left.next).previous = best.left;
    offer(left.previous);
    offer(best.left);
  }
}

const int32_t* Bpe::whole_word(std::string_view word) const {
  const StringMap<int32_t>& words =
      alphabet_ == Alphabet::kBytes ? whole_words_ : vocabulary_.ids();
  const auto found = words.find(word);
  return found == words.end() ? nullptr : &found->second;
}

Status Bpe::encode(std::string_view word, std::vector<Symbol>* out) const {
  if (ignore_merges_) {
    if (const int32_t* id = whole_word(word)) {
      out->push_back({*id, static_cast<uint32_t>(word.size())});
      return {};
    }
  }
  return word.size() > kCachedWordBytesMax ? encode_cut(word, out) : encode_cached(word, out);
}

// Nothing joins two letters of the vocabulary that no merge has at the end of its left token and at
// the start of its right one.
bool Bpe::apart(Letter left, Letter right) const {
  return left.id >= 0 && right.id >= 0 && !joints_.find(pair_of(left.id, right.id));
}

bool Bpe::apart(std::string_view before, std::string_view after) const {
  if (ignore_merges_) return false;  // a token may be the whole word, or one of its parts
  const size_t last = alphabet_ == Alphabet::kBytes ? before.size() - 1 : last_start(before);
  return apart(letter_at(before.substr(last)), letter_at(after));
}

// Cuts a word where nothing can join across.
Status Bpe::encode_cut(std::string_view word, std::vector<Symbol>* out) const {
  size_t begin = 0;
  Letter last = letter_at(word);
  for (size_t at = last.bytes; at <= word.size();) {
    const bool end = at == word.size();
    const Letter next = end ? Letter() : letter_at(word.substr(at));
    if (end || apart(last, next)) {
      if (at - begin == last.bytes && last.id >= 0) {
        out->push_back({last.id, last.bytes});
      } else {
        const std::string_view part = word.substr(begin, at - begin);
        WEFT_RETURN_IF_ERROR(part.size() > kCachedWordBytesMax ? encode_uncached(part, out)
                                                               : encode_cached(part, out));
      }
      begin = at;
    }
    at += next.bytes;
    last = next;
  }
  return {};
}

Status Bpe::encode_cached(std::string_view word, std::vector<Symbol>* out) const {
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = cache_.find(word); found != cache_.end()) {
      out->insert(out->end(), found->second.begin(), found->second.end());
      return {};
    }
  }
  const size_t before = out->size();
  WEFT_RETURN_IF_ERROR(encode_uncached(word, out));
  const std::lock_guard lock(mutex_);
  if (cache_.size() >= kCachedWordsMax) cache_.clear();
  cache_.emplace(word,
                 std::vector<Symbol>(out->begin() + static_cast<int64_t>(before), out->end()));
  return {};
}

Status Bpe::encode_uncached(std::string_view word, std::vector<Symbol>* out) const {
  if (word.size() > kWordBytesMax) {
    return Status(Code::kInvalidArgument,
                  "a word of more than 16 MiB; split the text into smaller documents");
  }
  std::vector<Node> nodes;
  nodes.reserve(word.size());
  WEFT_RETURN_IF_ERROR(first_symbols(word, &nodes));
  join(&nodes);
  for (const Node& node : nodes) {
    if (node.symbol.bytes > 0) out->push_back(node.symbol);
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<const WordModel>> parse_bpe(const json& section, Alphabet alphabet) {
  auto model = std::make_shared<Bpe>(alphabet);
  WEFT_RETURN_IF_ERROR(model->load(section));
  return std::shared_ptr<const WordModel>(std::move(model));
}

}  // namespace weft::tokenizers
