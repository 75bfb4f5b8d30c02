// Jobs of an encoder's tasks, topology-invariant, and what they read.
#pragma once

#include <nlohmann/json.hpp>

#include <fstream>
#include <string>

#include "tests/worker/trainer/topology_fixture.h"

namespace weft {

inline constexpr const char* kMasked =
    "type: masked_lm, data: {train: obj-text, validation: obj-text}";
inline constexpr const char* kChoices =
    "type: multiple_choice, labels: 2, data: {train: obj-choices, validation: obj-choices, "
    "format: jsonl}";
inline constexpr const char* kPairs =
    "type: embedding, data: {train: obj-pairs, validation: obj-pairs, format: jsonl}";
inline constexpr const char* kQuestions =
    "type: question_answering, data: {train: obj-questions, validation: obj-questions, "
    "format: jsonl, stride: 4}";

class TopologyTasks : public Topology {
 protected:
  void write_tasks(const fs::path& source) const {
    write_pair_tokenizer(source);
    for (const char* name : {"obj-choices", "obj-questions", "obj-pairs"}) {
      fs::create_directories(folder_ / name);
    }
    std::ofstream choices(folder_ / "obj-choices" / "choices.jsonl");
    std::ofstream questions(folder_ / "obj-questions" / "questions.jsonl");
    std::ofstream pairs(folder_ / "obj-pairs" / "pairs.jsonl");
    for (int i = 0; i < 19; ++i) {
      nlohmann::json of_row{"no way", "never here at all"};
      of_row[static_cast<size_t>(i % 2)] = "this one";
      const std::string text = "row " + std::to_string(i);
      choices << nlohmann::json{{"text", text}, {"choices", of_row}, {"label", i % 2}} << "\n";
      std::string context = i % 3 == 0 ? "speak the man and so on " : "";
      const auto start = std::ssize(context);
      context += "king who goes by the way";
      const nlohmann::json answers{{"text", {"king"}}, {"answer_start", {start}}};
      questions << nlohmann::json{{"question", "who is it"},
                                  {"context", context},
                                  {"answers", answers}}
                << "\n";
      pairs << nlohmann::json{{"text", text}, {"text_pair", std::to_string(i) + " of them"}}
            << "\n";
    }
  }

  static std::string tasks_job(const std::string& task, const std::string& settings) {
    return R"(
name: topology
kind: pretrain
model:
  family: bert
  config: {num_hidden_layers: 1, num_attention_heads: 8, hidden_size: 32, intermediate_size: 48,
           max_position_embeddings: 32, vocab_size: 1000, pad_token_id: 996}
tokenizer: {type: tokenizer_json, from: obj-tokenizer}
tasks: [{name: task, )" +
           task + R"(}]
training: {steps: 4, sequence_length: 24, seed: 17, reproducible: topology,
           optimizer: {learning_rate: 3.0e-3, weight_decay: 0.01}, )" +
           settings + "}\n";
  }
};

}  // namespace weft
