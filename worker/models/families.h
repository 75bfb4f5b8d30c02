// The families that find_family knows, each made once. Private to worker/models.
// Thread safety: pure functions. Ownership: families live as long as the program.
#pragma once

#include <span>

#include "worker/models/model.h"

namespace weft {

// A configuration as its family's own type.
template <typename Config>
const Config& config_as(const ModelConfig& config) {
  const auto* own = dynamic_cast<const Config*>(&config);
  WEFT_CHECK(own != nullptr, "a configuration of {}", config.family);
  return *own;
}

const ModelFamily& gpt2_family();
const ModelFamily& vit_family();
const ModelFamily& t5_family();
const ModelFamily& xlnet_family();
const ModelFamily& whisper_family();
std::span<const ModelFamily* const> llama_families();  // of llama_dialect.h
std::span<const ModelFamily* const> bert_families();   // of bert_dialect.h

}  // namespace weft
