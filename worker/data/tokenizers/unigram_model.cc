// Unigram; see word_model.h.
#include <algorithm>
#include <bit>
#include <limits>

#include "worker/data/tokenizers/json_fields.h"
#include "worker/data/tokenizers/unicode.h"
#include "worker/data/tokenizers/vocabulary.h"
#include "worker/data/tokenizers/word_model.h"

namespace weft::tokenizers {
namespace {

constexpr double kUnknownPenalty = 10;
constexpr size_t kUnigramWordBytesMax = size_t{16} << 20;

// Pieces by their bytes: of each node and byte the node behind it, by open addressing, at most half
// full. Node 0 is the root.
class PieceTrie {
 public:
  explicit PieceTrie(size_t bytes) : edges_(std::bit_ceil(2 * bytes + 2)), ids_(1, -1) {}
  void add(std::string_view piece, int32_t id) {
    uint32_t node = 0;
    for (const char c : piece) {
      Edge& edge = edges_[slot(key_of(node, c))];
      if (edge.key == kNone) {
        edge = {key_of(node, c), static_cast<uint32_t>(ids_.size())};
        ids_.push_back(-1);
      }
      node = edge.node;
    }
    ids_[node] = id;
  }
  // False: no piece goes on so.
  bool step(char c, uint32_t* node) const {
    const Edge& edge = edges_[slot(key_of(*node, c))];
    *node = edge.node;
    return edge.key != kNone;
  }
  int32_t id(uint32_t node) const { return ids_[node]; }  // -1: no piece ends here

 private:
  static constexpr uint64_t kNone = ~uint64_t{0};
  struct Edge {
    uint64_t key = kNone;
    uint32_t node = 0;
  };
  static uint64_t key_of(uint32_t node, char c) {
    return uint64_t{node} << 8 | static_cast<unsigned char>(c);
  }
  size_t slot(uint64_t key) const {
    size_t at = (key * 0x9E3779B97F4A7C15U >> 20) & (edges_.size() - 1);
    while (edges_[at].key != kNone && edges_[at].key != key) at = (at + 1) & (edges_.size() - 1);
    return at;
  }

  std::vector<Edge> edges_;
  std::vector<int32_t> ids_;
};

// The best way to a byte of a word: its last piece, and the score of all.
struct Best {
  static constexpr uint32_t kNowhere = std::numeric_limits<uint32_t>::max();
  double score = 0;
  uint32_t begin = kNowhere;
  int32_t id = 0;
};

class Unigram final : public WordModel {
 public:
  Status load(const json& section);

  int64_t vocab_size() const override { return vocabulary_.size(); }
  std::optional<int64_t> find(std::string_view token) const override {
    return vocabulary_.find(token);
  }
  const std::string& token(int64_t id) const override { return vocabulary_.token(id); }
  std::string_view name() const override { return "unigram"; }

  Status encode(std::string_view word, std::vector<Symbol>* out) const override;
  // Scores are rounded as they are added up from the word's start on, which tells ties apart.
  bool apart(std::string_view, std::string_view) const override { return false; }

 private:
  Status load_vocab(const json& vocab);
  Status best_ways(std::string_view word, std::vector<Best>* best) const;
  void add_unknown(std::string_view text, std::vector<Symbol>* out) const;

  Vocabulary vocabulary_;
  std::vector<double> scores_;
  PieceTrie trie_{0};
  double unknown_score_ = 0;
  int32_t unknown_ = -1;      // -1: none
  ByteTokens byte_tokens_{};  // all there, or not used
  bool byte_fallback_ = false;
};

Status Unigram::load(const json& section) {
  WEFT_RETURN_IF_ERROR(
      check_object("model", section, {"type", "unk_id", "vocab", "byte_fallback"}));
  WEFT_RETURN_IF_ERROR(load_vocab(member(section, "vocab")));
  WEFT_ASSIGN_OR_RETURN(byte_fallback_, bool_at("model", section, "byte_fallback", false));
  byte_tokens_ = vocabulary_.byte_tokens();
  const json& unknown = member(section, "unk_id");
  if (unknown.is_null()) return {};
  WEFT_ASSIGN_OR_RETURN(const int64_t id, id_of("model.unk_id", unknown));
  if (id >= vocab_size()) {
    return wrong("model.unk_id", unknown,
                 "must be an id of the vocabulary, in [0, " + std::to_string(vocab_size() - 1) +
                     "], or null");
  }
  unknown_ = static_cast<int32_t>(id);
  return {};
}

Status Unigram::load_vocab(const json& vocab) {
  if (!vocab.is_array() || vocab.empty()) {
    return wrong("model.vocab", vocab, "must be an array of a piece or more");
  }
  size_t bytes = 0;
  for (size_t i = 0; i < vocab.size(); ++i) {
    const json& entry = vocab[i];
    const std::string field = "model.vocab[" + std::to_string(i) + "]";
    if (!entry.is_array() || entry.size() != 2) {
      return wrong(field, entry, "must be a piece and its score");
    }
    if (!entry[0].is_string()) return wrong(field + "[0]", entry[0], "must be a string");
    if (!entry[1].is_number()) return wrong(field + "[1]", entry[1], "must be a number");
    vocabulary_.add(entry[0].get<std::string>());
    scores_.push_back(entry[1].get<double>());
    bytes += vocabulary_.token(vocab_size() - 1).size();
  }
  trie_ = PieceTrie(bytes);
  for (int64_t id = 0; id < vocab_size(); ++id) {
    trie_.add(vocabulary_.token(id), static_cast<int32_t>(id));
  }
  unknown_score_ = *std::ranges::min_element(scores_) - kUnknownPenalty;
  return {};
}

// As encode_optimized of the `tokenizers` package: of ways of the same score the first one stays.
Status Unigram::best_ways(std::string_view word, std::vector<Best>* ways) const {
  std::vector<Best>& best = *ways;
  const auto offer = [&](size_t begin, size_t end, double score, int32_t id) {
    score += best[begin].score;
    if (best[end].begin != Best::kNowhere && !(score > best[end].score)) return;
    best[end] = {score, static_cast<uint32_t>(begin), id};
  };
  size_t bytes = 0;
  for (size_t at = 0; at < word.size(); at += bytes) {
    code_point_at(word.substr(at), &bytes);
    bool has_character = false;
    uint32_t node = 0;
    for (size_t end = at; end < word.size() && trie_.step(word[end], &node);) {
      ++end;
      const int32_t id = trie_.id(node);
      if (id < 0) continue;
      offer(at, end, scores_[static_cast<size_t>(id)], id);
      has_character = has_character || end == at + bytes;
    }
    if (has_character) continue;
    offer(at, at + bytes, unknown_score_, unknown_);
    if (best[at + bytes].begin == at && best[at + bytes].id < 0) {
      return Status(Code::kInvalidArgument, "the tokenizer's vocabulary lacks the character " +
                                                code_point_name(word.substr(at)) +
                                                " and has no unk_id for it");
    }
  }
  return {};
}

// Neighbours without a piece are one, which may be a piece of less score than they have.
void Unigram::add_unknown(std::string_view text, std::vector<Symbol>* out) const {
  const auto bytes = static_cast<uint32_t>(text.size());
  if (const auto id = find(text)) {
    out->push_back({static_cast<int32_t>(*id), bytes});
    return;
  }
  const auto token = [this](char c) { return byte_tokens_[static_cast<unsigned char>(c)]; };
  if (!byte_fallback_ || std::ranges::any_of(text, [&](char c) { return token(c) < 0; })) {
    out->push_back({unknown_, bytes});
    return;
  }
  for (size_t i = 0; i < text.size(); ++i) {
    out->push_back({token(text[i]), bytes, /*shared=*/i + 1 < text.size()});
  }
}

Status Unigram::encode(std::string_view word, std::vector<Symbol>* out) const {
  if (word.size() > kUnigramWordBytesMax) {
    return Status(Code::kInvalidArgument,
                  "a word of more than 16 MiB; split the text into smaller documents");
  }
  std::vector<Best> best(word.size() + 1);
  WEFT_RETURN_IF_ERROR(best_ways(word, &best));
  std::vector<Symbol> pieces;  // from the word's end on; neighbours without one joined
  for (size_t end = word.size(); end > 0; end = best[end].begin) {
    const uint32_t bytes = static_cast<uint32_t>(end) - best[end].begin;
    if (best[end].id == unknown_ && !pieces.empty() && pieces.back().id == unknown_) {
      pieces.back().bytes += bytes;
    } else {
      pieces.push_back({best[end].id, bytes});
    }
  }
  size_t at = 0;
  for (auto piece = pieces.rbegin(); piece != pieces.rend(); at += piece->bytes, ++piece) {
    if (piece->id == unknown_) {
      add_unknown(word.substr(at, piece->bytes), out);
    } else {
      out->push_back(*piece);
    }
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<const WordModel>> parse_unigram(const json& section) {
  auto model = std::make_shared<Unigram>();
  WEFT_RETURN_IF_ERROR(model->load(section));
  return std::shared_ptr<const WordModel>(std::move(model));
}

}  // namespace weft::tokenizers
