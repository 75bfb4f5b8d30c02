// How the heads of an attention with grouped queries are spread over the ranks of an axis, which is
// the same question for tensor parallelism and for Ulysses.
//
// Thread safety: pure functions.
#pragma once

#include <vector>

#include "worker/parallel/mesh.h"

namespace weft::parallel {

// Heads of one rank: its queries' heads read its keys' heads and no others.
struct HeadParts {
  Part queries, keys;
};

// Part `index` of `count` of `heads` heads that share `key_heads` heads of keys (heads is a
// multiple of key_heads), evenly grouped. With enough heads of keys each rank has its own, parts
// differing by one. With fewer, each head of keys is held by as many neighbouring ranks as come to
// it, which share the heads that read it. With fewer heads than ranks some ranks have none of
// either.
HeadParts head_parts(int64_t heads, int64_t key_heads, int count, int index);
// Of all ranks.
std::vector<HeadParts> all_head_parts(int64_t heads, int64_t key_heads, int count);

// The same of topology-invariant training: part_of() the heads, and the heads of keys that these
// read, of which neighbours may hold the same, each for some of its readers.
HeadParts blocked_head_parts(int64_t heads, int64_t key_heads, int count, int index);
std::vector<HeadParts> all_blocked_head_parts(int64_t heads, int64_t key_heads, int count);

// Where such a part is shared out again among so many ranks of a row, which exchange heads: that of
// each, counted from the part's first heads.
std::vector<HeadParts> exchanged_head_parts(int64_t heads, int64_t key_heads, int count, int index,
                                            int ranks);
// Of the heads of keys the ones that count as this rank's: each is the first one's that has it.
Part counted_key_heads(int64_t key_heads, int count, int index);
// Whether every rank then has whole groups of heads, or one head of keys, whatever the number of
// ranks: a power of two that divides the heads and the blocks.
bool cuts_keys_evenly(int64_t heads, int64_t key_heads, int blocks);

// Of topology-invariant training over so many blocks: how many heads of queries, neighbours, have
// one term of the gradient of the head of keys that they read, so that each block of part_of() the
// heads has whole terms. 0: all that read it.
int64_t heads_of_term(int64_t heads, int64_t key_heads, int blocks);

}  // namespace weft::parallel
