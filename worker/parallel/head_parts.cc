#include "worker/parallel/head_parts.h"

#include <numeric>

namespace weft::parallel {

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

std::vector<HeadParts> all_head_parts(int64_t heads, int64_t key_heads, int count) {
  std::vector<HeadParts> parts;
  for (int index = 0; index < count; ++index) {
    parts.push_back(head_parts(heads, key_heads, count, index));
  }
  return parts;
}

int64_t heads_of_term(int64_t heads, int64_t key_heads, int64_t blocks) {
  if (blocks == 0) return 0;
  const int64_t ranks = std::gcd(heads, blocks);
  return ranks > key_heads && ranks % key_heads == 0 ? heads / ranks : 0;
}

}  // namespace weft::parallel
