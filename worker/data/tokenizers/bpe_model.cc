#include "worker/data/tokenizers/bpe_model.h"

#include <array>
#include <bit>
#include <map>
#include <mutex>
#include <queue>
#include <unordered_map>

#include "worker/data/tokenizers/byte_alphabet.h"
#include "worker/data/tokenizers/json_fields.h"

namespace weft::tokenizers {
namespace {

constexpr size_t kCachedWordsMax = 65536;
constexpr size_t kCachedWordBytesMax = 64;
constexpr size_t kWordBytesMax = size_t{16} << 20;

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
template <typename Value>
using StringMap = std::unordered_map<std::string, Value, StringHash, std::equal_to<>>;

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

class Bpe final : public BpeModel {
 public:
  Status load(const json& section);

  int64_t vocab_size() const override { return static_cast<int64_t>(tokens_.size()); }
  std::optional<int64_t> find(std::string_view token) const override {
    const auto found = ids_.find(token);
    if (found == ids_.end()) return std::nullopt;
    return found->second;
  }
  const std::string& token(int64_t id) const override { return tokens_[static_cast<size_t>(id)]; }

  Status encode(std::string_view word, std::vector<Symbol>* out) const override {
    if (word.size() > kCachedWordBytesMax) {
      // Without merges any stretch is a word.
      const size_t stretch = stretches_ ? kWordBytesMax / 256 : word.size();
      for (size_t at = 0; at < word.size(); at += stretch) {
        WEFT_RETURN_IF_ERROR(encode_uncached(word.substr(at, stretch), out));
      }
      return {};
    }
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

 private:
  Status load_vocab(const json& vocab);
  Status load_merges(const json& merges);
  Status add_merge(const std::string& field, const std::string& left, const std::string& right,
                   uint32_t rank);
  Status encode_uncached(std::string_view word, std::vector<Symbol>* out) const;
  Status first_symbols(std::string_view word, std::vector<Node>* nodes) const;
  void join(std::vector<Node>* nodes) const;

  std::vector<std::string> tokens_;
  StringMap<int32_t> ids_;
  std::array<int32_t, 256> byte_ids_ = {};  // -1: the vocabulary lacks it
  StringMap<int32_t> whole_words_;          // raw bytes -> id, for ignore_merges
  MergeTable merges_{0};
  std::optional<int32_t> unknown_;
  bool fuse_unknown_ = false, ignore_merges_ = false;
  bool stretches_ = false;  // no merges, no unknown tokens: a word may be cut anywhere

  mutable std::mutex mutex_;  // guards cache_
  mutable StringMap<std::vector<Symbol>> cache_;
};

Status Bpe::load(const json& section) {
  WEFT_RETURN_IF_ERROR(check_object(
      "model", section,
      {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
       "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"}));
  const json& type = member(section, "type");
  if (type != "BPE") return wrong("model.type", type, "must be BPE: no other is supported");
  const json& dropout = member(section, "dropout");
  if (!dropout.is_null() && dropout != 0.0) {
    return wrong("model.dropout", dropout, "must be null: random merges are not supported");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json& affix = member(section, key);
    if (!affix.is_null() && affix != "") {
      return wrong(std::string("model.") + key, affix, "must be null: not used at byte level");
    }
  }
  WEFT_ASSIGN_OR_RETURN(const bool fallback, bool_at("model", section, "byte_fallback", false));
  if (fallback) return wrong("model.byte_fallback", true, "must be false at byte level");
  WEFT_ASSIGN_OR_RETURN(fuse_unknown_, bool_at("model", section, "fuse_unk", false));
  WEFT_ASSIGN_OR_RETURN(ignore_merges_, bool_at("model", section, "ignore_merges", false));
  WEFT_RETURN_IF_ERROR(load_vocab(member(section, "vocab")));
  const json& unknown = member(section, "unk_token");
  if (!unknown.is_null()) {
    if (!unknown.is_string() || !find(unknown.get<std::string>())) {
      return wrong("model.unk_token", unknown, "must be a token of the vocabulary, or null");
    }
    unknown_ = static_cast<int32_t>(*find(unknown.get<std::string>()));
  }
  return load_merges(member(section, "merges"));
}

Status Bpe::load_vocab(const json& vocab) {
  if (!vocab.is_object() || vocab.empty()) {
    return wrong("model.vocab", vocab, "must be an object with a token or more");
  }
  tokens_.resize(vocab.size());
  std::vector<bool> taken(vocab.size());
  for (const auto& [token, value] : vocab.items()) {
    const std::string field = "model.vocab.\"" + token.substr(0, 60) + "\"";
    WEFT_ASSIGN_OR_RETURN(const int64_t id, id_of(field, value));
    const auto at = static_cast<size_t>(id);
    if (at >= tokens_.size()) {
      return wrong(field, value,
                   "ids must be 0 to " + std::to_string(tokens_.size() - 1) +
                       " without a gap, as many as there are tokens");
    }
    if (taken[at]) return wrong(field, value, "\"" + tokens_[at] + "\" has this id too");
    taken[at] = true;
    tokens_[at] = token;
    ids_.emplace(token, static_cast<int32_t>(id));
  }
  for (uint32_t byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = static_cast<int32_t>(find(utf8_of(byte_to_code_point()[byte])).value_or(-1));
  }
  if (!ignore_merges_) return {};
  for (const auto& [token, id] : ids_) {
    if (auto raw = raw_bytes(token)) whole_words_.emplace(std::move(*raw), id);
  }
  return {};
}

Status Bpe::load_merges(const json& merges) {
  if (!merges.is_array()) return wrong("model.merges", merges, "must be an array");
  merges_ = MergeTable(merges.size());
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
  stretches_ = rank == 0 && !unknown_ && !ignore_merges_;
  return {};
}

Status Bpe::add_merge(const std::string& field, const std::string& left, const std::string& right,
                      uint32_t rank) {
  const auto a = find(left), b = find(right), joined = find(left + right);
  if (!a || !b || !joined) {
    return wrong(field, !a ? left : !b ? right : left + right, "is no token of the vocabulary");
  }
  merges_.set(pair_of(*a, *b), rank, static_cast<int32_t>(*joined));
  return {};
}

Status Bpe::first_symbols(std::string_view word, std::vector<Node>* nodes) const {
  std::optional<uint32_t> unknown;  // bytes of the pending unknown token
  const auto add = [nodes](int32_t id, uint32_t bytes) {
    nodes->push_back({{id, bytes}, static_cast<int32_t>(nodes->size()) - 1, -1});
  };
  for (const char c : word) {
    const auto byte = static_cast<unsigned char>(c);
    const int32_t id = byte_ids_[byte];
    if (id < 0 && !unknown_) {
      return Status(Code::kInvalidArgument, "the tokenizer's vocabulary lacks the byte " +
                                                std::to_string(byte) +
                                                " and has no unk_token for it");
    }
    if (id < 0) {
      if (unknown && !fuse_unknown_) add(*unknown_, *unknown);
      unknown = unknown && fuse_unknown_ ? *unknown + 1 : 1;
      continue;
    }
    if (unknown) add(*unknown_, *unknown);
    unknown.reset();
    add(id, 1);
  }
  if (unknown) add(*unknown_, *unknown);
  for (size_t i = 0; i + 1 < nodes->size(); ++i) {
    (*nodes)[i].next = static_cast<int32_t>(i) + 1;
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

Status Bpe::encode_uncached(std::string_view word, std::vector<Symbol>* out) const {
  if (word.size() > kWordBytesMax) {
    return Status(Code::kResourceExhausted,
                  "a word of more than 16 MiB; split the text into smaller documents");
  }
  if (ignore_merges_) {
    if (const auto found = whole_words_.find(word); found != whole_words_.end()) {
      out->push_back({found->second, static_cast<uint32_t>(word.size())});
      return {};
    }
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

Result<std::shared_ptr<const BpeModel>> BpeModel::parse(const json& section) {
  auto model = std::make_shared<Bpe>();
  WEFT_RETURN_IF_ERROR(model->load(section));
  return std::shared_ptr<const BpeModel>(std::move(model));
}

}  // namespace weft::tokenizers
