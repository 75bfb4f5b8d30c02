// Jobs of an encoder's tasks and of an encoder-decoder's, topology-invariant, and what they read.
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
inline constexpr const char* kTargets =
    "{name: write, type: seq2seq, "
    "data: {train: obj-targets, validation: obj-targets, format: jsonl}}";

class TopologyTasks : public Topology {
 protected:
  void write_tasks(const fs::path& source) const {
    write_pair_tokenizer(source);
    for (const char* name : {"obj-choices", "obj-questions", "obj-pairs", "obj-targets"}) {
      fs::create_directories(folder_ / name);
    }
    std::ofstream choices(folder_ / "obj-choices" / "choices.jsonl");
    std::ofstream questions(folder_ / "obj-questions" / "questions.jsonl");
    std::ofstream pairs(folder_ / "obj-pairs" / "pairs.jsonl");
    std::ofstream targets(folder_ / "obj-targets" / "targets.jsonl");
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
      const std::string read(static_cast<size_t>(3 + 2 * i), "xyz"[i % 3]);  // the last are cut
      targets << nlohmann::json{{"text", read}, {"target", text + (i % 2 == 0 ? "" : " written")}}
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

  // T5's own, and 1.1's.
  static constexpr const char* kRelu = "d_ff: 48";
  static constexpr const char* kGated =
      "d_ff: 64, feed_forward_proj: gated-gelu, tie_word_embeddings: false";
  static std::string writing_job(const std::string& model, const std::string& settings) {
    return R"(
name: topology
kind: pretrain
model:
  family: t5
  config: {num_layers: 2, num_decoder_layers: 1, num_heads: 8, d_model: 32, d_kv: 6,
           relative_attention_num_buckets: 8, relative_attention_max_distance: 16, vocab_size: 261,
           )" +
           model + R"(}
tokenizer: {type: byte}
tasks: [)" +
           std::string(kTargets) +
           R"(]
training: {steps: 4, sequence_length: 24, target_length: 16, seed: 17, reproducible: topology,
           optimizer: {learning_rate: 3.0e-3, weight_decay: 0.01}, )" +
           settings + "}\n";
  }

  static std::string hearing_job(const std::string& settings) {
    return R"(
name: topology
kind: pretrain
model:
  family: whisper
  config: {encoder_layers: 2, decoder_layers: 1, encoder_attention_heads: 8,
           decoder_attention_heads: 8, d_model: 32, encoder_ffn_dim: 48, decoder_ffn_dim: 48,
           num_mel_bins: 9, max_source_positions: 50, max_target_positions: 16, vocab_size: 261,
           decoder_start_token_id: 258, pad_token_id: 256, dropout: 0.1, attention_dropout: 0.1,
           activation_dropout: 0.1}
tokenizer: {type: byte}
tasks: [{type: speech_recognition,
         data: {train: obj-recordings, validation: obj-recordings, format: audio}}]
training: {steps: 4, target_length: 11, seed: 17, reproducible: topology,
           optimizer: {learning_rate: 3.0e-3, weight_decay: 0.01}, )" +
           settings + "}\n";
  }

  // XLNet, whose tokenizer is obj-typed. dropout: above 0 each row has distances of its own.
  static std::string relative_job(const std::string& task, const std::string& settings,
                                  double dropout = 0.1) {
    return R"(
name: topology
kind: pretrain
model:
  family: xlnet
  config: {n_layer: 2, n_head: 8, d_model: 32, d_inner: 48, vocab_size: 1000, pad_token_id: 996,
           dropout: )" +
           std::to_string(dropout) + R"(}
tokenizer: {type: tokenizer_json, from: obj-typed}
tasks: [{name: task, )" +
           task + R"(}]
training: {steps: 4, sequence_length: 24, seed: 17, reproducible: topology,
           optimizer: {learning_rate: 3.0e-3, weight_decay: 0.01}, )" +
           settings + "}\n";
  }
};

}  // namespace weft
