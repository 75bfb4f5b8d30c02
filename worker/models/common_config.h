// What the families' config.json have in common.
//
// Thread safety: pure functions.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>

#include "kernels/ops/ops.h"
#include "worker/models/config_reader.h"
#include "worker/models/model.h"

namespace weft {

inline constexpr int64_t kExtentMax = (int64_t{1} << 31) - 1;
inline constexpr int64_t kParametersMax = int64_t{1} << 50;  // so that bytes of them can be added

// Of the model's matrices, tables included; any size, so no integer.
double matrix_elements(const ModelConfig& config);
// Refuses, at the key that is there of `names` (else the first), a model of more than
// kParametersMax parameters in its matrices.
void refuse_beyond_count(ConfigReader& reader, const ModelConfig& config,
                         std::initializer_list<const char*> names);

// transformers' name of an activation at `key`; refused where it is none that is known. more: what
// else the key may be.
ops::Activation read_activation(ConfigReader& reader, const char* key, const std::string& name,
                                const char* more = "");
// bos_token_id, eos_token_id (one or a list) and pad_token_id: of the vocabulary, which is read
// before them; null and -1 mean none. `own` are the family's, which absent keys mean. bos and eos
// too mean none to a smaller vocabulary, as transformers writes them beside one of any size.
struct OwnTokens {
  int64_t bos = -1, eos = -1, pad = -1;
};
void read_token_ids(ConfigReader& reader, ModelConfig& config, const OwnTokens& own);
// What has no influence on what is computed: how transformers was run, generation, other heads.
void accept_the_rest(ConfigReader& reader);
// What no family computes; whether the family is an encoder and a decoder.
void refuse_what_changes_the_model(ConfigReader& reader, const std::string& family,
                                   bool encodes_and_decodes = false);

// Adds those token ids, of a model of text, and, of `head`, the architecture:
// <prefix>ForSequenceClassification with its labels, or `language_model`.
void write_head(nlohmann::json& json, const ModelConfig& config, const ExportHead& head,
                const std::string& prefix, const std::string& language_model);

}  // namespace weft
