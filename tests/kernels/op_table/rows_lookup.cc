#include "kernels/ops/ops.h"
#include "tests/kernels/op_table/table.h"

namespace weft::op_table {
namespace {

// Ids partly outside of the table's part [first_id, first_id + V), and repeated.
std::vector<Case> look_ups(bool padded) {
  struct LookUp {
    Shape ids, table;
    int64_t first;
  };
  std::vector<Case> cases;
  for (const LookUp& look : std::vector<LookUp>{{{2, 3}, {5, 3}, 2},
                                                {{7}, {5, 3}, 0},
                                                {{9}, {5, 3}, 1},
                                                {{0}, {5, 3}, 0},
                                                {{1}, {1, 1}, 0},
                                                {{}, {5, 3}, 0},
                                                {{3, 0}, {5, 3}, 0},
                                                {{13}, {7, 1}, 3},
                                                {{2, 2, 3}, {11, 5}, 0},
                                                {{5}, {3, 0}, 0},
                                                {{131}, {37, 17}, 0},
                                                {{3, 5}, {1, 7, 4}, 0},
                                                {{11}, {2, 3, 5}, 4},
                                                {{2, 4}, {3}, 1},
                                                {{67, 3}, {101, 64}, 50}}) {
    int64_t extent = 1;
    for (int dim = 0; dim + 1 < look.table.dims(); ++dim) extent *= look.table[dim];
    const int64_t first = look.first;
    Case item{{index(look.ids, first == 0 ? 0 : first - 1, first + extent + (first == 0 ? 0 : 1)),
               real(look.table)},
              {{"first_id", {static_cast<double>(first)}}}};
    if (padded) item.attributes.set("padding_id", {static_cast<double>(first + extent / 2)});
    cases.push_back(std::move(item));
  }
  return cases;
}

Outputs looked_up(Context& cx, Inputs x, const Attributes& a) {
  return {ops::embedding(cx, x[0], x[1], a.integer("first_id"),
                         a.has("padding_id") ? a.integer("padding_id") : -1)};
}

std::vector<Case> row_choices() {
  std::vector<Case> cases;
  for (const Shape& shape : std::vector<Shape>{{3, 4, 2},
                                               {1, 1, 1},
                                               {0, 4, 2},
                                               {3, 4, 0},
                                               {7, 1, 5},
                                               {2, 13, 3},
                                               {5, 2, 1},
                                               {1, 37, 2},
                                               {3, 3, 3},
                                               {11, 5, 7},
                                               {2, 2, 257},
                                               {31, 17, 33}}) {
    cases.push_back({{real(shape), index({shape[0]}, -1, shape[1])}, {}});
  }
  return cases;
}

std::vector<Case> dropouts() {
  struct Part {
    Shape local, global;
    std::vector<double> offset;
  };
  std::vector<Case> cases;
  for (const Part& part : std::vector<Part>{{{3, 5}, {3, 9}, {0, 2}},
                                            {{3, 5}, {3, 5}, {0, 0}},
                                            {{1}, {1}, {0}},
                                            {{7}, {100}, {93}},
                                            {{0, 3}, {4, 3}, {2, 0}},
                                            {{2, 3, 4}, {4, 3, 4}, {1, 0, 0}},
                                            {{2, 1, 4}, {2, 3, 4}, {0, 2, 0}},
                                            {{13}, {13}, {0}},
                                            {{5, 1}, {5, 7}, {0, 6}},
                                            {{37}, {41}, {3}},
                                            {{2, 2, 2, 2}, {3, 3, 3, 3}, {1, 0, 1, 0}},
                                            {{67, 251}, {80, 300}, {5, 11}},
                                            {{131}, {262}, {131}}}) {
    std::vector<double> global;
    for (const int64_t extent : part.global.extents())
      global.push_back(static_cast<double>(extent));
    cases.push_back({{real(part.local)},
                     {{"rate", {0.4}},
                      {"seed", {5}},
                      {"stream", {9}},
                      {"global", global},
                      {"offset", part.offset}}});
  }
  return cases;
}

}  // namespace

std::vector<Row> lookup_rows() {
  return {
      {"embedding", looked_up, look_ups(false)},
      {"embedding_padded", looked_up, look_ups(true), nullptr, 4, false},
      {"gather_rows",
       [](Context& cx, Inputs x, const Attributes&) {
         return Outputs{ops::gather_rows(cx, x[0], x[1])};
       },
       row_choices()},
      {"dropout",
       [](Context& cx, Inputs x, const Attributes& a) {
         const RandomKey key{static_cast<uint64_t>(a.integer("seed")),
                             static_cast<uint64_t>(a.integer("stream"))};
         return Outputs{ops::dropout(cx, x[0], a.real("rate"), key,
                                     {Shape(a.integers("global")), a.integers("offset")})};
       },
       dropouts()},
  };
}

}  // namespace weft::op_table
