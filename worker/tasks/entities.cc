#include "worker/tasks/entities.h"

#include <algorithm>
#include <string_view>

namespace weft {

std::optional<EntityTags> EntityTags::parse(std::span<const std::string> classes) {
  EntityTags parsed;
  std::vector<std::string_view> types;
  for (const std::string& name : classes) {
    if (name == "O") {
      parsed.tags_.push_back({});
      continue;
    }
    if (!name.starts_with("B-") && !name.starts_with("I-")) return std::nullopt;
    const std::string_view type = std::string_view(name).substr(2);
    const auto found = std::ranges::find(types, type);
    parsed.tags_.push_back({name.front(), found - types.begin()});
    if (found == types.end()) types.push_back(type);
  }
  if (types.empty()) return std::nullopt;
  return parsed;
}

std::vector<Entity> EntityTags::entities(std::span<const int64_t> words) const {
  std::vector<Entity> found;
  Tag before;
  for (size_t i = 0; i < words.size(); ++i) {
    const auto number = static_cast<size_t>(words[i]);
    const Tag tag = number < tags_.size() ? tags_[number] : Tag();  // a class may have no name
    const auto place = static_cast<int64_t>(i);
    if (tag.place == 'B' || (tag.place == 'I' && tag.type != before.type)) {
      found.push_back({place, place, tag.type});
    } else if (tag.place == 'I') {
      found.back().last = place;
    }
    before = tag;
  }
  return found;
}

}  // namespace weft
