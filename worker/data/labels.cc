#include "worker/data/labels.h"

#include <algorithm>
#include <iterator>
#include <set>

#include "proto/json/value.h"

namespace weft {
namespace {

std::string shown(const Label& label) {
  const auto* name = std::get_if<std::string>(&label);
  return name != nullptr ? shortened(*name) : std::to_string(std::get<int64_t>(label));
}

}  // namespace

Labels::Labels(std::string key, int64_t count, std::optional<std::vector<std::string>> trained,
               std::vector<std::string> first)
    : key_(std::move(key)),
      count_(count),
      training_(!trained),
      first_(training_ ? std::move(first) : std::move(*trained)) {
  if (training_) return;
  kind_ = first_.empty() ? Kind::kIntegers : Kind::kStrings;
  int64_t number = 0;
  for (const std::string& name : first_) numbers_.insert_or_assign(name, number++);
}

Status Labels::check_kind(const Document& document, const Label& label) {
  const bool named = std::holds_alternative<std::string>(label);
  const Kind kind = named ? Kind::kStrings : Kind::kIntegers;
  if (kind_ == Kind::kUnknown) kind_ = kind;
  if (kind_ == kind) return {};
  const std::string before = training_ ? "the labels before it are " : "the training data has ";
  return document.refuse(key_, shown(label),
                         before + (kind == Kind::kStrings ? "integers" : "strings") +
                             "; give all as integers or all as strings");
}

Result<int64_t> Labels::take(const Document& document, const Label& label) {
  WEFT_RETURN_IF_ERROR(check_kind(document, label));
  const auto* name = std::get_if<std::string>(&label);
  if (name == nullptr) {
    const int64_t number = std::get<int64_t>(label);
    if (number >= 0 && number < count_) return number;
    return fail(document.refuse(key_, shown(label),
                                "must be in [0, " + std::to_string(count_) +
                                    "), as the task has labels: " + std::to_string(count_)));
  }
  const auto found = numbers_.find(*name);
  if (found != numbers_.end()) return found->second;
  if (!training_) {
    std::string known;
    for (const std::string& each : first_) known += (known.empty() ? "" : ", ") + each;
    return fail(document.refuse(key_, shown(label),
                                "must be a label of the training data: " + shortened(known)));
  }
  const auto number = static_cast<int64_t>(numbers_.size());
  if (number == count_) {
    return fail(
        document.refuse(key_, shown(label),
                        "makes " + std::to_string(number + 1) +
                            " different labels, the task has labels: " + std::to_string(count_)));
  }
  numbers_.emplace(*name, number);
  return number;
}

std::vector<std::string> Labels::names() const {
  if (!training_) return first_;
  std::vector<std::string> sorted;
  for (const auto& [name, number] : numbers_) sorted.push_back(name);
  if (sorted.empty()) return {};
  std::vector<std::string> names = first_;
  const std::set<std::string> first(first_.begin(), first_.end());
  std::ranges::set_difference(sorted, first, std::back_inserter(names));
  return static_cast<int64_t>(names.size()) <= count_ ? names : sorted;
}

std::vector<int64_t> Labels::classes() const {
  if (!training_) return {};
  std::vector<int64_t> classes(numbers_.size());
  int64_t next = 0;
  for (const std::string& name : names()) {
    const auto found = numbers_.find(name);
    if (found != numbers_.end()) classes[static_cast<size_t>(found->second)] = next;
    ++next;
  }
  return classes;
}

}  // namespace weft
