// A golden case: a folder with a small model, inputs, and the outputs, gradients and training
// trajectory that transformers computes for them in float64.
//
//   hf/                  config.json and model.safetensors
//   case.json            name, family, task, zero_gradients, ...
//   case.safetensors     inputs, outputs, "loss", "grad.<parameter>"
//   batches.safetensors  training batches: "0.input_ids" (of images "0.pixel_values", of
//                        recordings "0.input_features"), "0.labels", ...
//   trajectory.json      20 AdamW updates on these batches in turn
//   bf16.json            optional: how far PyTorch in bfloat16 is from all this
//   adapter/             optional: adapter_config.json and adapter_model.safetensors of PEFT, whose
//                        weights are what is trained; "merged.<parameter>" are the weights with it
//
// Thread safety: values; read-only while ranks run. Ownership: a case owns everything it read.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "proto/base/status.h"
#include "worker/models/hf_folder.h"
#include "worker/optimizer/optimizer.h"
#include "worker/optimizer/schedule.h"
#include "worker/tasks/task.h"

namespace weft::golden {

struct Expected {
  Shape shape;
  std::vector<float> values;
};

struct ExpectedStep {
  int64_t batch = 0;
  double rate = 0, loss = 0, gradient_norm = 0;
};

struct Trajectory {
  AdamWOptions optimizer;
  Schedule schedule;
  double clip = 0;
  std::vector<ExpectedStep> steps;
  std::vector<ExpectedStep> accumulated;  // the same from two micro-batches; may be empty
  double loss_on_case_after = 0;
  std::map<std::string, double> parameter_norms_after;
};

struct Case {
  std::string name;
  std::string task;             // as case.json says: "causal", "sequence", "packed", ...
  std::string task_type;        // of make_task
  HfFolder folder;              // its configuration has the adapter
  std::string adapter_weights;  // full path of adapter_model.safetensors; empty: no adapter
  TaskRows inputs;
  // attention_mask of the inputs: where outputs count; all tokens of targets and all predictions do
  std::vector<int64_t> compared;
  std::map<std::string, Expected> tensors;  // outputs, "loss", "grad.*", "merged.*"
  std::vector<std::string> zero_gradients;
  std::vector<TaskRows> batches;
  Trajectory trajectory;
  // PyTorch's errors in bfloat16 by tensor ("logits", "grad.*") and by kind of number ("loss",
  // "grad_norm", "norm after"); empty: not derived.
  std::map<std::string, double> bf16_errors;

  // As the task has it.
  int64_t rows_together() const {
    return head_kind(task_type) == HeadKind::kChoice ? folder.labels : 1;
  }
};

// Whether tensors, rows and configuration fit together, so that no index leaves a tensor.
Status check_case(const Case& golden);

// Reads and checks. Errors name the file and what is wrong; a family or task that is not known here
// is named.
Result<Case> read_case(const std::string& folder);

}  // namespace weft::golden
