// Numbers in data that name something (an index, a label, a length), and what is said of one that
// names nothing: on the CPU by the op, at once; on a GPU by whoever waits for it next, since a
// kernel only leaves that number out and notes it (kernels/cuda/outside.cuh).
//
// Thread safety: values. Also compiled by nvcc.
#pragma once

#include <cstdint>

namespace weft {

class Status;

namespace ops {

enum class Numbers : unsigned {
  kNone,
  kGather,
  kScatterAdd,
  kIndexSelect,
  kIndexAdd,
  kOneHot,
  kGatherRows,  // -1 as well: none
  kSegment,
  kLabel,
  kInputLength,
  kTargetLength,
  kTarget,  // which is not the blank, either
};

struct OutOfRange {
  Numbers numbers = Numbers::kNone;  // kNone: no number was
  int64_t value = 0;
  int64_t end = 0;    // one behind the largest that there is
  int64_t blank = 0;  // of kTarget
};

// kInvalidArgument that names the field, the value and the rule.
Status to_status(const OutOfRange& found);
[[noreturn]] void throw_out_of_range(const OutOfRange& found);  // StatusError

}  // namespace ops
}  // namespace weft
