// This rank's share of a golden case's model and task, freshly loaded from the case's hf/ folder.
//
// Thread safety: the rank's compute thread; all ranks of the mesh call the same functions together.
// Ownership: refers to the rank; owns trunk and task.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/autograd/tape.h"
#include "worker/golden/comparer.h"
#include "worker/optimizer/gradients.h"

namespace weft::golden {

class Replica {
 public:
  // Throws StatusError where the model cannot be made or loaded.
  Replica(Rank& rank, const Case& golden);

  // Compares logits and hidden states of the case's inputs; returns the loss.
  double outputs(const Case& golden, Comparer& comparer);
  // Mean loss over the labels of the rows, without and with gradients (which are left complete on
  // the parameters). micro_batches 0: one.
  double loss_of(const TaskRows& rows);
  double gradients_of(const TaskRows& rows, int64_t micro_batches);
  void clear();

  std::vector<Parameter*> parameters();
  std::vector<Parameter> handles();
  // As the case calls it: by its name in the files of transformers, or of PEFT.
  std::string file_name(const Parameter& parameter) const;
  // Euclidean norm of the whole parameter.
  double norm_of(const Parameter& parameter, const std::vector<double>& master);

 private:
  Part own_rows(const TaskRows& rows) const;
  double sum_over_replicas(double value);
  // Of a token of a row among this rank's; -1 where it has another.
  int64_t own_place(const TaskBatch& batch, int64_t token) const;
  void compare_embedding(const Case& golden, const Tensor& vectors, Comparer& comparer);
  // end: 0 of the logits of beginnings, 1 of ends.
  void compare_ends(const Case& golden, const TaskBatch& batch, const std::string& name,
                    const Tensor& logits, int64_t end, Comparer& comparer);
  void compare_hidden(const Case& golden, const TaskBatch& batch, const Tensor& joined,
                      Comparer& comparer);
  void compare_logits(const Case& golden, const TaskBatch& batch, const Tensor& logits,
                      Comparer& comparer);

  Rank& rank_;
  const std::string prefix_;
  std::unique_ptr<Trunk> trunk_;
  std::unique_ptr<Task> task_;
};

}  // namespace weft::golden
