// Which tasks a model can be trained for: what the trainer makes, admission lets in and the command
// line proposes.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace weft {

struct ModelConfig;

// task_type: as a job file has it; of what is no type, no.
bool learns(const ModelConfig& config, std::string_view task_type);

// All that it learns, in the order of the schema.
std::vector<std::string> learned_tasks(const ModelConfig& config);

// "must be one that xlnet learns: sequence_classification, ... or multiple_choice".
std::string learned_tasks_rule(const ModelConfig& config);

}  // namespace weft
