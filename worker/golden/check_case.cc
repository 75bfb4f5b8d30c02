// A case's tensors against its configuration: everything that later code relies on.
#include <algorithm>

#include "worker/golden/golden_case.h"

namespace weft::golden {
namespace {

Status wrong(const std::string& what, const std::string& value, const std::string& rule) {
  return Status::invalid(what, value, rule);
}

Status check_range(const std::string& what, const std::vector<int64_t>& values, int64_t below,
                   int64_t besides) {
  for (int64_t value : values) {
    if ((value < 0 || value >= below) && value != besides) {
      return wrong(what, std::to_string(value), "must be from 0 to " + std::to_string(below - 1));
    }
  }
  return Status();
}

bool classifies_sequences(const Case& golden) {
  const auto kind = head_kind(golden.task_type);
  return kind == HeadKind::kSequence || kind == HeadKind::kChoice || kind == HeadKind::kImage;
}

// Tokens of a row that may have a label: its own, those of its target, or its predictions.
int64_t labeled_tokens(const TaskRows& rows) {
  if (rows.predictions > 0) return rows.predictions;
  return rows.target_tokens > 0 ? rows.target_tokens : rows.tokens;
}

// Classes of what has a label.
int64_t classes_of(const Case& golden) {
  const auto kind = head_kind(golden.task_type);
  if (kind == HeadKind::kSpan) return golden.inputs.tokens;
  const bool of_tokens = !kind || kind == HeadKind::kMasked || kind == HeadKind::kPermuted;
  return of_tokens ? golden.folder.config->vocabulary : golden.folder.labels;
}

Status check_rows(const Case& golden, const TaskRows& rows, const std::string& prefix) {
  const ModelConfig& config = *golden.folder.config;
  WEFT_RETURN_IF_ERROR(check_range(prefix + "input_ids", rows.ids, config.vocabulary, 0));
  WEFT_RETURN_IF_ERROR(check_range(prefix + "position_ids", rows.positions, config.positions, 0));
  WEFT_RETURN_IF_ERROR(
      check_range(prefix + "token_type_ids", rows.token_types, config.token_types, 0));
  if (rows.positions.empty() && rows.tokens > config.tokens_max()) {
    return wrong(prefix + "input_ids", std::to_string(rows.tokens) + " tokens",
                 "must be at most the model's positions, " + std::to_string(config.tokens_max()));
  }
  if (golden.task_type == "embedding") {
    if (rows.labels.empty() && rows.rows % 2 == 0) return {};
    return wrong(prefix + "input_ids", std::to_string(rows.rows) + " rows",
                 "must be even, without labels: rows i and n + i are a pair");
  }
  const bool has_ends = head_kind(golden.task_type) == HeadKind::kSpan;
  const int64_t labels = has_ends                       ? kSpanEnds * rows.rows
                         : classifies_sequences(golden) ? rows.rows / golden.rows_together()
                                                        : rows.rows * labeled_tokens(rows);
  if (static_cast<int64_t>(rows.labels.size()) != labels || labels == 0) {
    return wrong(prefix + "labels", std::to_string(rows.labels.size()) + " elements",
                 "must have " + std::to_string(labels));
  }
  const int64_t classes = has_ends ? rows.tokens : classes_of(golden);
  return check_range(prefix + "labels", rows.labels, classes, has_ends ? 0 : kNoLabel);
}

Status check_shape(const Case& golden, const std::string& name, const Shape& shape) {
  const auto found = golden.tensors.find(name);
  if (found == golden.tensors.end() || found->second.shape == shape) return Status();
  return wrong(name, found->second.shape.to_string(), "must have the shape " + shape.to_string());
}

Status check_gradients(const Case& golden) {
  const HfFolder& folder = golden.folder;
  const std::string of_gradients =
      "grad." + std::string(golden.adapter_weights.empty() ? "" : kPeftPrefix);
  for (const ParameterInfo& info : folder.family->plan(*folder.config, 1, 0)) {
    WEFT_RETURN_IF_ERROR(check_shape(golden, of_gradients + info.name, info.shape));
    WEFT_RETURN_IF_ERROR(check_shape(golden, "merged." + info.name, info.shape));
  }
  const auto kind = head_kind(golden.task_type);
  if (!kind) return {};
  const auto head = folder.family->head(*folder.config, *kind, folder.labels);
  if (!head) {
    return wrong("task", golden.task, "must be one that " + folder.config->family + " has");
  }
  for (const ParameterInfo& info : head_plan(*head, *folder.config, "", 1, 0)) {
    WEFT_RETURN_IF_ERROR(check_shape(golden, of_gradients + info.name, info.shape));
  }
  return {};
}

}  // namespace

Status check_case(const Case& golden) {
  const ModelConfig& config = *golden.folder.config;
  const int64_t rows = golden.inputs.rows, tokens = labeled_tokens(golden.inputs);
  if (classes_of(golden) < 2) {
    return wrong("id2label", std::to_string(golden.folder.labels),
                 "a classification needs at least 2 classes");
  }
  WEFT_RETURN_IF_ERROR(check_rows(golden, golden.inputs, ""));
  for (size_t i = 0; i < golden.batches.size(); ++i) {
    WEFT_RETURN_IF_ERROR(check_rows(golden, golden.batches[i], std::to_string(i) + "."));
  }
  if (static_cast<int64_t>(golden.compared.size()) != rows * tokens) {
    return wrong("attention_mask", std::to_string(golden.compared.size()) + " elements",
                 "must have those of input_ids");
  }
  const auto loss = golden.tensors.find("loss");
  if (loss == golden.tensors.end() || loss->second.values.size() != 1) {
    return wrong("loss", "absent or no scalar", "must be a scalar in case.safetensors");
  }
  WEFT_RETURN_IF_ERROR(check_shape(golden, "last_hidden_state", {rows, tokens, config.hidden}));
  WEFT_RETURN_IF_ERROR(check_shape(golden, "embedding", {rows, config.hidden}));
  for (const char* name : {"start_logits", "end_logits"}) {
    WEFT_RETURN_IF_ERROR(check_shape(golden, name, {rows, tokens}));
  }
  const int64_t classes = classes_of(golden);
  WEFT_RETURN_IF_ERROR(check_shape(golden, "logits",
                                   classifies_sequences(golden)
                                       ? Shape{rows / golden.rows_together(), classes}
                                       : Shape{rows, tokens, classes}));
  return check_gradients(golden);
}

}  // namespace weft::golden
