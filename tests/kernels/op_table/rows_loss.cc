#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {

std::vector<Case> classifications(const Attributes& attributes) {
  std::vector<Case> cases;
  for (const Shape& shape : std::vector<Shape>{{2, 3, 5},
                                               {2, 1},
                                               {1, 1},
                                               {0, 5},
                                               {7, 3},
                                               {5},
                                               {13, 2},
                                               {1, 257},
                                               {3, 1031},
                                               {2, 2, 2, 3},
                                               {67, 251},
                                               {31, 37}}) {
    const Shape labels(shape.extents().first(static_cast<size_t>(shape.dims() - 1)));
    cases.push_back({{real(shape), index(labels, -1, shape[-1])}, attributes});
  }
  return cases;
}

std::vector<Row> loss_rows() {
  return {
      {"cross_entropy_sum",
       [](Context& cx, Inputs x, const Attributes& a) {
         return Outputs{
             ops::cross_entropy_sum(cx, x[0], x[1], {.ignore_index = a.integer("ignore_index")})};
       },
       classifications({{"ignore_index", {-1}}}), nullptr, 16},
  };
}

}  // namespace weft::op_table
