#include "worker/golden/permutation.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <vector>

namespace weft::golden {
namespace {

using Floats = std::span<const float>;

Result<std::vector<float>> read_matrix(const SafetensorsFile& file, const std::string& name,
                                       int64_t rows, int64_t columns) {
  const SafetensorInfo* info = file.find(name);
  if (info == nullptr || info->shape.size() != 3 || info->shape[0] != rows ||
      info->shape[2] != columns) {
    return fail(Status::invalid(
        file.path() + ": " + name, info == nullptr ? "absent" : "another shape",
        fmt::format("must have the shape [{}, any, {}], of the rows and tokens of input_ids", rows,
                    columns)));
  }
  std::vector<float> values(static_cast<size_t>(info->elements()));
  WEFT_RETURN_IF_ERROR(file.read(name, values));
  return values;
}

// Of one row's mask [tokens, tokens], 1 where token i may not see token j: 0 of what all see, and
// the others by how many may not see them, of which each has one more than that before it.
std::vector<int64_t> order_of(Floats hidden, size_t tokens) {
  std::vector<int64_t> hidden_from(tokens), targets, order(tokens);
  for (size_t i = 0; i < tokens; ++i) {
    for (size_t j = 0; j < tokens; ++j) hidden_from[j] += hidden[i * tokens + j] != 0 ? 1 : 0;
  }
  for (size_t j = 0; j < tokens; ++j) {
    if (hidden_from[j] > 0) targets.push_back(static_cast<int64_t>(j));
  }
  std::ranges::stable_sort(targets, {},
                           [&](int64_t j) { return hidden_from[static_cast<size_t>(j)]; });
  for (size_t i = 0; i < targets.size(); ++i) {
    order[static_cast<size_t>(targets[i])] = static_cast<int64_t>(i) + 1;
  }
  return order;
}

bool is_mask_of(std::span<const int64_t> order, Floats hidden) {
  for (size_t i = 0; i < order.size(); ++i) {
    for (size_t j = 0; j < order.size(); ++j) {
      const bool hides = order[j] > 0 && order[j] >= order[i];
      if (hidden[i * order.size() + j] != (hides ? 1.0F : 0.0F)) return false;
    }
  }
  return true;
}

}  // namespace

Status read_predictions(const SafetensorsFile& file, const std::string& prefix, TaskRows& rows) {
  const auto tokens = static_cast<size_t>(rows.tokens);
  const std::string masks = prefix + "perm_mask", targets = prefix + "target_mapping";
  WEFT_ASSIGN_OR_RETURN(const auto mask, read_matrix(file, masks, rows.rows, rows.tokens));
  WEFT_ASSIGN_OR_RETURN(const auto mapping, read_matrix(file, targets, rows.rows, rows.tokens));
  const auto all = static_cast<size_t>(rows.rows);
  if (mask.size() != all * tokens * tokens) {
    return Status::invalid(file.path() + ": " + masks, "another shape",
                           "must have a row and a column of each token");
  }
  for (size_t row = 0; row < all; ++row) {
    const Floats own = Floats(mask).subspan(row * tokens * tokens, tokens * tokens);
    const std::vector<int64_t> order = order_of(own, tokens);
    if (!is_mask_of(order, own)) {
      return Status::invalid(file.path() + ": " + masks, "that of row " + std::to_string(row),
                             "must be of an order: what is predicted is hidden from itself, and "
                             "from all that is not behind it");
    }
    rows.order.insert(rows.order.end(), order.begin(), order.end());
  }
  for (size_t at = 0; at < mapping.size(); at += tokens) {
    const Floats own = Floats(mapping).subspan(at, tokens);
    const auto one = std::ranges::find(own, 1.0F);
    if (one == own.end() || std::ranges::count(own, 0.0F) + 1 != std::ssize(own)) {
      return Status::invalid(file.path() + ": " + targets,
                             "that of prediction " + std::to_string(at / tokens),
                             "must be 1 of the token that is predicted and 0 of the others");
    }
    rows.places.push_back(one - own.begin());
  }
  rows.predictions = std::ssize(rows.places) / std::max<int64_t>(1, rows.rows);
  return {};
}

}  // namespace weft::golden
