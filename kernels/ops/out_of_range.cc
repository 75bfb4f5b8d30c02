#include "kernels/ops/out_of_range.h"

#include <fmt/format.h>

#include <string>

#include "proto/base/check.h"
#include "proto/base/status.h"

namespace weft::ops {

Status to_status(const OutOfRange& found) {
  const auto say = [&](const char* field, const std::string& rule) {
    return Status::invalid(field, std::to_string(found.value), rule);
  };
  const auto index = [&](const char* op, int first = 0) {
    return say("index", fmt::format("{} takes [{}, {})", op, first, found.end));
  };
  const std::string below = fmt::format("must be in [0, {})", found.end);
  const std::string up_to = fmt::format("must be in [0, {}]", found.end - 1);
  switch (found.numbers) {
    case Numbers::kGather:
      return index("gather");
    case Numbers::kScatterAdd:
      return index("scatter_add");
    case Numbers::kIndexSelect:
      return index("index_select");
    case Numbers::kIndexAdd:
      return index("index_add");
    case Numbers::kOneHot:
      return index("one_hot");
    case Numbers::kGatherRows:
      return index("gather_rows", -1);
    case Numbers::kSegment:
      return say("segment", below);
    case Numbers::kLabel:
      return say("label", below);
    case Numbers::kInputLength:
      return say("input_lengths", up_to);
    case Numbers::kTargetLength:
      return say("target_lengths", up_to);
    case Numbers::kTarget:
      return say("targets", fmt::format("{} and not the blank, {}", below, found.blank));
    case Numbers::kNone:
      break;
  }
  WEFT_CHECK(false, "no such numbers: {}", static_cast<unsigned>(found.numbers));
  return {};
}

void throw_out_of_range(const OutOfRange& found) { throw StatusError(to_status(found)); }

}  // namespace weft::ops
