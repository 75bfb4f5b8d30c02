#include "proto/json/names.h"

#include <algorithm>
#include <cctype>

#include "google/protobuf/descriptor.h"
#include "proto/options.pb.h"

namespace weft {

namespace pb = google::protobuf;

const proto::FieldRule& rule_of(const pb::FieldDescriptor& field) {
  return field.options().GetExtension(proto::rule);
}

namespace {

constexpr std::string_view kUnspecified = "UNSPECIFIED";

std::string_view enum_prefix(const pb::EnumDescriptor& type) {
  std::string_view first = type.value(0)->name();
  if (!first.ends_with(kUnspecified)) return "";
  return first.substr(0, first.size() - kUnspecified.size());
}

// Levenshtein's distance, with a swap of neighbours counted once.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> cost(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = i + j;
        continue;
      }
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1,
                             cost[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

}  // namespace

std::string enum_name(const pb::EnumValueDescriptor& value) {
  std::string_view prefix = enum_prefix(*value.type());
  std::string_view name = value.name();
  if (!prefix.empty() && value.index() == 0) return "";
  if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  return lower(name);
}

const pb::EnumValueDescriptor* find_enum(const pb::EnumDescriptor& type, std::string_view name) {
  if (name.empty()) return nullptr;
  for (int i = 0; i < type.value_count(); ++i) {
    if (enum_name(*type.value(i)) == name) return type.value(i);
  }
  return nullptr;
}

std::vector<std::string> enum_names(const pb::EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) {
    std::string name = enum_name(*type.value(i));
    if (!name.empty()) names.push_back(std::move(name));
  }
  return names;
}

std::string one_of(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < names.size(); ++i) {
    if (i > 0) text += i + 1 == names.size() ? " or " : ", ";
    text += names[i];
  }
  return text;
}

std::string closest(std::string_view word, const std::vector<std::string>& candidates) {
  if (word.size() > 64) return "";
  std::string spelled = lower(word);
  std::replace(spelled.begin(), spelled.end(), '-', '_');
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    size_t apart = distance(spelled, candidate);
    if (apart < best_distance && apart < candidate.size()) {
      best_distance = apart;
      best = candidate;
    }
  }
  return best;
}

bool is_free_form(const pb::Descriptor& type) {
  const std::string& name = type.full_name();
  return name == "google.protobuf.Struct" || name == "google.protobuf.Value" ||
         name == "google.protobuf.ListValue";
}

}  // namespace weft
