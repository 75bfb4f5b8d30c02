// The heads of BERT and its kin.
//
// Thread safety: pure functions.
#pragma once

#include "worker/models/bert_config.h"

namespace weft::bert {

// labels: of kSequence and kToken.
Head head(const Dialect& dialect, const Config& config, HeadKind kind, int64_t labels);

}  // namespace weft::bert
