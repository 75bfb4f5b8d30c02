// What a loaded model's head finds in data: its metrics, as the trainer measures them on held-out
// data, the classes of texts, their embeddings and the answers that they hold.
//
// Thread safety: the rank's compute thread. Ownership: everything belongs to the caller.
// Invariants: 1. rows, losses and hits are those of worker/data and worker/tasks, by which the
// trainer evaluates: the numbers are the same but for the order in which sums are rounded. 2. how
// many rows are computed at once changes no more than that.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "worker/data/dataset.h"
#include "worker/serve/loaded_model.h"

namespace weft {

// The samples done so far and their loss.
using OnSamples = std::function<void(int64_t done, double loss)>;

// Task::metrics of all of the data, whose options are of the model's task; of recordings also "wer"
// and "cer", the word and character error rates of what the model writes of them (transcribe.h)
// beside the data's targets as they were cut. Error: a loss that is no finite number.
Result<std::map<std::string, double>> evaluate(Rank& rank, LoadedModel& model, const Dataset& data,
                                               int64_t rows_at_once,
                                               const OnSamples& on_samples = {});

// Of a classifier: each sample's probabilities of the classes, which sum to 1; of a classifier of
// tokens those of each place of the samples' rows. Error: scores that are no finite numbers, of
// which none is the largest.
Result<std::vector<std::vector<double>>> class_probabilities(Rank& rank, LoadedModel& model,
                                                             const Dataset& texts);

// Of an embedding: each text's vector, of length 1. Error: as class_probabilities.
Result<std::vector<std::vector<float>>> embeddings(Rank& rank, LoadedModel& model,
                                                   const Dataset& texts);

// Of questions: of each window its likeliest answer, with probabilities for scores. Error: as
// class_probabilities.
Result<std::vector<FoundAnswer>> likeliest_answers(Rank& rank, LoadedModel& model,
                                                   const Dataset& questions, int64_t rows_at_once);

}  // namespace weft
