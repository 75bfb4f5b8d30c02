// Tells the classes of words by a token classifier, and what all classifiers tell alike.
// Thread safety: one thread. Ownership: none kept.
#pragma once

#include "coordinator/cli/commands.h"
#include "coordinator/cli/render.h"
#include "proto/json/writer.h"
#include "worker/serve/evaluate.h"

namespace weft::cli {

// Prints the words of each text, `at_once` of which are computed together, with their classes.
Status classify_words(const Context& context, Rank& rank, LoadedModel& model,
                      const DatasetOptions& how, const Documents& texts, size_t at_once);

// The classes as rows' labels would say them: by name, or by number where none has a name.
std::vector<std::string> shown_classes(const HfFolder& folder);

// Every class, the likeliest first.
Table class_table(const HfFolder& folder, const std::vector<double>& probabilities);

// The keys label, class, probability and probabilities of an object.
void write_classes(const HfFolder& folder, const std::vector<double>& probabilities,
                   JsonWriter& out);

}  // namespace weft::cli
