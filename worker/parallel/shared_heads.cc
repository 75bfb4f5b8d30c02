#include "worker/parallel/shared_heads.h"

#include <array>
#include <map>
#include <vector>

#include "kernels/tensor/strided.h"
#include "worker/parallel/tree_sum.h"

namespace weft::parallel {
namespace {

// What one rank has to do with another about a head that both have: the run of the head's elements
// that one of the two adds up, and where it lies in a buffer of such pieces, rank by rank.
struct Piece {
  size_t rank = 0;
  int64_t head = 0;
  Part elements;
  int64_t at = 0;
};

// Of rank `own`, itself among the others: pieces that the others add up, or those that it does.
enum class AddedBy { kOthers, kOwn };
std::vector<Piece> pieces_of(std::span<const Part> heads, int own, int64_t head_elements,
                             AddedBy by) {
  std::vector<Piece> pieces;
  int64_t at = 0;
  for (size_t rank = 0; rank < heads.size(); ++rank) {
    const Part both = common_part(heads[static_cast<size_t>(own)], heads[rank]);
    for (int64_t head = both.start; head < both.start + both.length; ++head) {
      const Part ranks = ranks_with(heads, head);
      if (ranks.length < 2) continue;
      const int64_t adds = by == AddedBy::kOwn ? own : static_cast<int64_t>(rank);
      const Part elements = part_of(head_elements, static_cast<int>(ranks.length),
                                    static_cast<int>(adds - ranks.start));
      pieces.push_back({rank, head, elements, at});
      at += elements.length;
    }
  }
  return pieces;
}

// Elements of each rank's.
std::vector<int64_t> counts_of(const std::vector<Piece>& pieces, size_t ranks) {
  std::vector<int64_t> counts(ranks);
  for (const Piece& piece : pieces) counts[piece.rank] += piece.elements.length;
  return counts;
}

Tensor buffer_of(Context& cx, const std::vector<Piece>& pieces, DType dtype) {
  const int64_t elements = pieces.empty() ? 0 : pieces.back().at + pieces.back().elements.length;
  return Tensor::empty(cx.allocator, {elements}, dtype);
}

Tensor run_of(const Tensor& x, int64_t start, int64_t length) {
  return x.view({length}, std::array<int64_t, 1>{1}, start);
}
Tensor in_buffer(const Tensor& buffer, const Piece& piece) {
  return run_of(buffer, piece.at, piece.elements.length);
}

// [B, N, T, D] <-> [N, B, T, D], a view.
Tensor turned(const Tensor& x) {
  const auto strides = x.strides();
  return x.view({x.dim(1), x.dim(0), x.dim(2), x.dim(3)},
                std::array<int64_t, 4>{strides[1], strides[0], strides[2], strides[3]}, 0);
}

// The terms of each piece that this rank adds up, one of each rank that has the head, become the
// sum.
void add_up(Context& cx, const std::vector<Piece>& pieces, const Tensor& buffer, size_t ranks) {
  std::map<int64_t, std::vector<Tensor>> terms;  // by head, then by rank
  for (const Piece& piece : pieces) {
    std::vector<Tensor>& of_head = terms[piece.head];
    of_head.resize(ranks);
    of_head[piece.rank] = in_buffer(buffer, piece);
  }
  for (const auto& [head, of_ranks] : terms) {
    std::vector<char> present;
    for (const Tensor& term : of_ranks) present.push_back(term ? 1 : 0);
    const auto term = [&of = of_ranks](int64_t rank) { return of[static_cast<size_t>(rank)]; };
    const int64_t sum = merge_tree(
        present, [&](int64_t into, int64_t from) { add_into(cx.pool, term(from), term(into)); });
    for (int64_t rank = 0; rank < std::ssize(of_ranks); ++rank) {
      if (term(rank) && rank != sum) copy_into(cx.pool, term(sum), term(rank));
    }
  }
}

}  // namespace

Part ranks_with(std::span<const Part> heads, int64_t head) {
  Part ranks;
  for (int64_t rank = 0; rank < std::ssize(heads); ++rank) {
    const Part& own = heads[static_cast<size_t>(rank)];
    if (common_part(own, {head, 1}).length == 0) continue;
    if (ranks.length == 0) ranks.start = rank;
    ++ranks.length;
  }
  return ranks;
}

bool shares_heads(std::span<const Part> heads, int rank) {
  const Part& own = heads[static_cast<size_t>(rank)];
  for (int64_t head = own.start; head < own.start + own.length; ++head) {
    if (ranks_with(heads, head).length > 1) return true;
  }
  return false;
}

Tensor sum_shared_heads(Context& cx, Communicator& comm, const Tensor& x,
                        std::span<const Part> heads) {
  const size_t ranks = heads.size();
  WEFT_CHECK(std::ssize(heads) == comm.size(), "heads of {} ranks, of {}", ranks, comm.size());
  bool any = false;
  for (int rank = 0; rank < comm.size(); ++rank) any |= shares_heads(heads, rank);
  if (!any) return x;
  const Part& own = heads[static_cast<size_t>(comm.rank())];
  WEFT_CHECK(x.dim(1) == own.length, "{} of {} heads", x.shape().to_string(), own.length);
  const Tensor by_head = clone(cx.pool, turned(x));
  const int64_t head_elements = x.dim(0) * x.dim(2) * x.dim(3);
  const auto in_head = [&](const Piece& piece) {
    return run_of(by_head, (piece.head - own.start) * head_elements + piece.elements.start,
                  piece.elements.length);
  };

  const auto theirs = pieces_of(heads, comm.rank(), head_elements, AddedBy::kOthers);
  const auto mine = pieces_of(heads, comm.rank(), head_elements, AddedBy::kOwn);
  const auto of_theirs = counts_of(theirs, ranks), of_mine = counts_of(mine, ranks);
  Tensor outward = buffer_of(cx, theirs, x.dtype()), inward = buffer_of(cx, mine, x.dtype());
  for (const Piece& piece : theirs) copy_into(cx.pool, in_head(piece), in_buffer(outward, piece));
  comm.all_to_all(outward, of_theirs, inward, of_mine);
  add_up(cx, mine, inward, ranks);
  comm.all_to_all(inward, of_mine, outward, of_theirs);
  for (const Piece& piece : theirs) copy_into(cx.pool, in_buffer(outward, piece), in_head(piece));
  return turned(by_head);
}

}  // namespace weft::parallel
