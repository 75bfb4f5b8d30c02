// A task's data held against the task before anything is started: whatever Dataset::load would
// refuse that takes no tokenizer to see.
//
// Thread safety: free functions. Ownership: none kept.
#pragma once

#include <vector>

#include "proto/base/status.h"
#include "worker/data/chats.h"
#include "worker/data/dataset.h"
#include "worker/data/labels.h"

namespace weft {

// A document's own rules: a text to classify is not empty and no chat; where `utf8` (every
// tokenizer but the byte tokenizer asks for it), a text is valid UTF-8.
Status check_document(const Document& document, const DatasetOptions& options, bool utf8);

// Reads all documents once and keeps nothing; `labels` takes those of a classification, `chats`
// (may be null: the tokenizer is not at hand) renders chats. Errors name file, line, key and rule:
// those of source.h, of labels.h, of chats.h, of check_document; no text.
Status check_data(const std::vector<SourceFile>& files, const DatasetOptions& options, bool utf8,
                  Labels& labels, Chats* chats = nullptr);

}  // namespace weft
