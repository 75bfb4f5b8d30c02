// The task types that make_task knows, and what they share. Private to worker/tasks.
// Thread safety: as task.h.
#pragma once

#include "worker/tasks/task.h"

namespace weft {

std::unique_ptr<Task> make_embedding(Rank& rank, const ModelConfig& config, TaskOptions options);
std::unique_ptr<Task> make_causal_lm(Rank& rank, const ModelConfig& config, TaskOptions options);
// type: seq2seq, speech_recognition.
std::unique_ptr<Task> make_seq2seq(Rank& rank, const ModelConfig& config, std::string_view type,
                                   TaskOptions options);
std::unique_ptr<Task> make_masked_lm(Rank& rank, const ModelConfig& config, Head head,
                                     TaskOptions options);
std::unique_ptr<Task> make_permutation_lm(Rank& rank, const ModelConfig& config, Head head,
                                          TaskOptions options);
// kind: kSequence, kChoice or kImage.
std::unique_ptr<Task> make_sequence_classification(Rank& rank, const ModelConfig& config,
                                                   HeadKind kind, Head head, TaskOptions options);
std::unique_ptr<Task> make_token_classification(Rank& rank, const ModelConfig& config, Head head,
                                                TaskOptions options);
std::unique_ptr<Task> make_question_answering(Rank& rank, const ModelConfig& config, Head head,
                                              TaskOptions options);

// This rank's tokens of the rows `part`: everything of a TokenBatch but the random key. The
// attention decides which tokens those are: the ranks of the sequence axis have equal shares of its
// work.
TokenBatch assemble_tokens(Rank& rank, const TokenRules& rules, const TaskRows& rows, Part part);

}  // namespace weft
