// The labels of a classification of texts or of words, one after the other. Integers are the
// classes themselves; strings become classes in the order of their names, all of which are known
// only at the end. Those of the model that a training starts from keep their numbers, which rows of
// its head stand for; others follow. Where there is no room for all, the names' order alone counts.
//
// Thread safety: one thread. Ownership: values.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "proto/base/status.h"
#include "worker/data/source.h"

namespace weft {

class Labels {
 public:
  // `count` classes, under `key` in each row. `trained`: the names of the training data's classes
  // in order, empty where they are integers; absent: this is the training data. `first`: of
  // training data, the classes of the model that it starts from, in order.
  Labels(std::string key, int64_t count, std::optional<std::vector<std::string>> trained,
         std::vector<std::string> first = {});

  // The class of a document's label; of a string in training data the number of different strings
  // before it, which classes() turns into its class. Errors name file, line and rule: an integer
  // outside [0, count), integers and strings mixed, one string too many, none of the training
  // data's.
  Result<int64_t> take(const Document& document, const Label& label);

  // In the order of their numbers; empty where the labels are integers.
  std::vector<std::string> names() const;
  // For each number that take() gave, its class; empty where they are the classes already.
  std::vector<int64_t> classes() const;

 private:
  enum class Kind { kUnknown, kIntegers, kStrings };
  Status check_kind(const Document& document, const Label& label);

  const std::string key_;
  const int64_t count_;
  const bool training_;
  const std::vector<std::string> first_;  // of held-out data all: those of the training data
  Kind kind_ = Kind::kUnknown;
  std::map<std::string, int64_t> numbers_;
};

}  // namespace weft
