// A task: a head on the shared trunk, a loss and metrics.
//
// The loss of a step is the mean over all labels that count in the whole step's batch: every rank
// sums over its own labels, micro-batch by micro-batch (loss_sum, whose sum over the data and
// sequence axes and the micro-batches is the whole), and the backward pass is seeded with 1 /
// label_count(rows).
//
// Thread safety: the rank's compute thread. Ownership: a task refers to its Rank and owns its head.
// Invariants: 1. what a rank feeds depends on the step's rows and its place on the mesh only. 2.
// the loss sum is the same on every rank of the tensor axis.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "worker/data/answers.h"
#include "worker/data/rows.h"  // TaskRows, kNoLabel
#include "worker/models/model.h"

namespace weft {

// One micro-batch of this rank.
struct TaskBatch {
  TokenBatch tokens;
  Tensor labels;  // int64: causal_lm, seq2seq [B, Tl], what each position predicts; token
                  // classification [B, Tl]; sequence and image classification [B], kNoLabel on
                  // the ranks of the sequence axis that do not hold the classified token, multiple
                  // choice [questions] alike; masked_lm [places of `pooled`];
                  // permutation_lm [B x predictions];
                  // embedding [pairs of the step], kNoLabel of those whose loss another rank takes;
                  // question answering [2 B], as the tokens of all ranks are numbered
  double seed = 1;     // what the backward pass of loss_sum will be seeded with, where it is known
  Tensor device_seed;  // the same on a GPU, a scalar; empty: none
  // int64; -1: none. Sequence and image classification, multiple choice: [B], place of the
  // classified token among Tl;
  // masked_lm: places of the predicted tokens among B x Tl.
  // embedding: [rows of the step], each one's place among B.
  Tensor pooled;
  Tensor counted;  // embedding: float [B, 1, Tl], 1 of a token that counts, 0 of padding
  std::vector<ContextWindow> windows;  // question answering: of the B rows; empty: of none
};

// The rows [start, start + length) of a step's batch that each micro-batch of this rank has; in
// order. `together`: so many, one after the other, are never parted.
std::vector<Part> micro_batches(const Mesh& mesh, int64_t rows, int64_t micro_batch_size,
                                int64_t together = 1);

// The same, with empty ones at the end where another rank has more: as many on every rank.
std::vector<Part> micro_batch_rounds(const Mesh& mesh, int64_t rows, int64_t micro_batch_size,
                                     int64_t together);
// The tokens of the first of these of all ranks of the data axis, one rank's after the other's.
std::vector<int64_t> first_tokens(const Mesh& mesh, const TaskRows& rows, int64_t micro_batch_size);
// Of topology-invariant training: in each round all ranks together have the next `at_once` rows,
// which divide `rows`, shared out over the data axis.
std::vector<Part> blocked_rounds(const Mesh& mesh, int64_t rows, int64_t at_once);

// What of a model decides which tokens of a row are whose, and where they stand.
struct TokenRules {
  explicit TokenRules(const ModelConfig& config);
  parallel::AttentionPattern attention;
  bool typed = false;              // tokens have types
  std::optional<int64_t> skipped;  // by positions: ModelConfig::positions_skip_padding
};

struct TaskOptions {
  std::string name;    // of the task, the prefix of its head's parameters
  int64_t labels = 0;  // of a classification: classes; of a choice: rows of a question
  std::vector<std::string> label_names = {};  // of these, in order; empty: they have none
  double mask_rate = 1;                       // masked_lm: at which tokens are predicted
};

// Sums over evaluated labels of this rank.
struct EvaluationSums {
  double loss = 0;
  int64_t labels = 0;
  int64_t correct = 0;
  // Of a token classification by tags of entities (entities.h).
  int64_t entities_wanted = 0, entities_found = 0, entities_correct = 0;
  std::vector<FoundAnswer> answers;  // of windows of this rank; reduce() leaves them as they are
  void add(const EvaluationSums& other);
  // Over the ranks that saw different rows and tokens (Axis::kReplica). Of a rank with blocks the
  // loss is the whole one already. A collective.
  void reduce(Rank& rank);
};

class Task {
 public:
  virtual ~Task() = default;
  const std::string& name() const { return options_.name; }
  // As a job file has it.
  virtual std::string_view type() const = 0;
  // Of the head, initialized by initialize_parameters or loaded; empty for causal_lm, seq2seq.
  std::vector<Parameter>& parameters() { return parameters_; }
  // A head's name in the files of transformers: "score.weight" of "<task>.score.weight".
  std::string file_name(const std::string& parameter) const;
  // Whether a parameter of the head is of no use but for the classes that it learned.
  virtual bool for_own_classes(const ParameterInfo& /*info*/) const { return false; }

  // The replicas (Axis::kReplica) compute it together: each takes part with all its rows at once,
  // also without any.
  virtual bool joins_replicas() const { return false; }

  // So many rows, one after the other, are computed by one rank at once: a question's choices.
  virtual int64_t rows_together() const { return 1; }

  // evaluate() gives an answer for each window, so that questions can be scored.
  virtual bool finds_answers() const { return false; }

  // Labels of the whole step's batch that count; depends on the rows only.
  virtual int64_t label_count(const TaskRows& rows) const = 0;
  // This rank's share of the rows `part` of the step's batch: its tokens of the sequence axis of
  // each.
  virtual TaskBatch assemble(const TaskRows& rows, Part part) const = 0;

  // Scalar, this rank's labels.
  virtual Tensor loss_sum(Context& cx, Trunk& trunk, const TaskBatch& batch) = 0;
  // What a loss is taken of. Of a sequence or image classification: [B, labels]; rows whose
  // classified token lies elsewhere mean nothing; of a multiple choice the same of questions. Of a
  // token classification: [B, Tl, labels]; of a question answering [B, Tl, 2]. Of a language model:
  // this rank's part of the vocabulary, [B, Tl, part_of(V, t).length], of a permutation_lm
  // [B, predictions, part_of(V, t).length]. Of an embedding: vectors of
  // length 1, [rows of the step, H].
  virtual Tensor logits(Context& cx, Trunk& trunk, const TaskBatch& batch) = 0;
  // Loss and hits of this rank's labels, nothing recorded. `labels` counts this rank's labels.
  virtual EvaluationSums evaluate(Context& cx, Trunk& trunk, const TaskBatch& batch) = 0;
  // "loss", "accuracy", "labels"; of a language model "perplexity"; of tags of entities "f1".
  virtual std::map<std::string, double> metrics(const EvaluationSums& sums) const = 0;

 protected:
  Task(Rank& rank, const ModelConfig& config, TaskOptions options)
      : rank_(rank), rules_(config), options_(std::move(options)) {}
  Rank& rank_;
  const TokenRules rules_;
  const TaskOptions options_;
  std::vector<Parameter> parameters_;
};

// Errors: an unknown type (the message lists the known ones), one that does not go with the family,
// labels below 2 for a classification.
Result<std::unique_ptr<Task>> make_task(Rank& rank, std::string_view type,
                                        const ModelConfig& config, TaskOptions options);

}  // namespace weft
