// Tells the classes of words by a token classifier.
// Thread safety: one thread. Ownership: none kept.
#pragma once

#include "coordinator/cli/commands.h"
#include "worker/serve/evaluate.h"

namespace weft::cli {

// Prints the words of each text, `at_once` of which are computed together, with their classes.
Status classify_words(const Context& context, Rank& rank, LoadedModel& model,
                      const DatasetOptions& how, const Documents& texts, size_t at_once);

// The classes as rows' labels would say them: by name, or by number where none has a name.
std::vector<std::string> shown_classes(const HfFolder& folder);

}  // namespace weft::cli
