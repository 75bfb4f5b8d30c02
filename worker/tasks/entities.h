// Named entities in tags of words (Ramshaw and Marcus 1995): B-X begins one of type X, I-X goes on
// with it, O is none. As seqeval's default mode and conlleval before it, an I-X that follows no X
// begins one, too.
//
// Thread safety: const calls from any thread. Ownership: values.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace weft {

// Entities [first, last] of a row's words.
struct Entity {
  int64_t first = 0, last = 0, type = 0;
  bool operator==(const Entity&) const = default;
};

class EntityTags {
 public:
  // Nothing where a class has another name than O, B-... or I-....
  static std::optional<EntityTags> parse(std::span<const std::string> classes);
  // Of a row of words, by their classes.
  std::vector<Entity> entities(std::span<const int64_t> words) const;

 private:
  struct Tag {
    char place = 'O';  // O, B or I
    int64_t type = -1;
  };
  std::vector<Tag> tags_;  // of each class
};

}  // namespace weft
