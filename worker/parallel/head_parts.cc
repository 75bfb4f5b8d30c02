#include "worker/parallel/head_parts.h"

#include <numeric>

namespace weft::parallel {
namespace {

template <typename PartsOf>
std::vector<HeadParts> all_of(const PartsOf& parts_of, int64_t heads, int64_t key_heads,
                              int count) {
  std::vector<HeadParts> parts;
  for (int index = 0; index < count; ++index) {
    parts.push_back(parts_of(heads, key_heads, count, index));
  }
  return parts;
}

}  // namespace

HeadParts head_parts(int64_t heads, int64_t key_heads, int count, int index) {
  WEFT_CHECK(key_heads >= 1 && heads >= key_heads && heads % key_heads == 0,
             "{} heads share {} of keys", heads, key_heads);
  const int64_t group = heads / key_heads;
  if (key_heads >= count || group == 1) {
    const Part keys = part_of(key_heads, count, index);
    return {{keys.start * group, keys.length * group}, keys};
  }
  // The ranks are cut among the heads of keys, then each head's readers among its ranks.
  const int key = part_with(count, static_cast<int>(key_heads), index);
  const Part ranks = part_of(count, static_cast<int>(key_heads), key);
  const Part readers =
      part_of(group, static_cast<int>(ranks.length), static_cast<int>(index - ranks.start));
  return {{key * group + readers.start, readers.length}, {key, readers.length > 0 ? 1 : 0}};
}

HeadParts blocked_head_parts(int64_t heads, int64_t key_heads, int count, int index) {
  const Part queries = part_of(heads, count, index);
  if (queries.length == 0) return {queries, {}};
  const int64_t readers = heads / key_heads, first = queries.start / readers;
  const int64_t last = (queries.start + queries.length - 1) / readers;
  return {queries, {first, last - first + 1}};
}

std::vector<HeadParts> exchanged_head_parts(int64_t heads, int64_t key_heads, int count, int index,
                                            int ranks) {
  const auto [queries, keys] = blocked_head_parts(heads, key_heads, count, index);
  std::vector<HeadParts> parts;
  for (int rank = 0; rank < ranks; ++rank) {
    // A part of a part is a part of the whole.
    HeadParts part = blocked_head_parts(heads, key_heads, count * ranks, index * ranks + rank);
    if (part.queries.length > 0) {
      part.queries.start -= queries.start;
      part.keys.start -= keys.start;
    } else {
      part = {};
    }
    parts.push_back(part);
  }
  return parts;
}

Part counted_key_heads(int64_t key_heads, int count, int index) {
  // A head that ranks share begins before the part of all but the first of them.
  return part_of(key_heads, count, index);
}

bool cuts_keys_evenly(int64_t heads, int64_t key_heads, int blocks) {
  const int64_t most = std::gcd(heads, int64_t{blocks});
  return key_heads % most == 0 || most % key_heads == 0;
}

std::vector<HeadParts> all_head_parts(int64_t heads, int64_t key_heads, int count) {
  return all_of(head_parts, heads, key_heads, count);
}

std::vector<HeadParts> all_blocked_head_parts(int64_t heads, int64_t key_heads, int count) {
  return all_of(blocked_head_parts, heads, key_heads, count);
}

int64_t heads_of_term(int64_t heads, int64_t key_heads, int blocks) {
  const int64_t readers = heads / key_heads;
  int64_t each = readers;
  for (int block = 1; block < blocks; ++block) {
    each = std::gcd(each, part_of(heads, blocks, block).start);
  }
  return each < readers ? each : 0;
}

}  // namespace weft::parallel
