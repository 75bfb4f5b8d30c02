#include "worker/models/llama_dialect.h"

#include <array>

namespace weft::llama {
namespace {

using Biases = Dialect::Biases;
using Windows = Dialect::Windows;

// Defaults as transformers' configuration classes have them.
constexpr std::array kDialects{
    Dialect{.name = "llama", .classes = "Llama", .biases = Biases::kAsked},
    Dialect{.name = "mistral",
            .classes = "Mistral",
            .windows = Windows::kAll,
            .positions = 131072,
            .inner = 14336,
            .key_heads = 8},
    Dialect{.name = "qwen2",
            .classes = "Qwen2",
            .biases = Biases::kQueryKeyValue,
            .windows = Windows::kByLayer,
            .vocabulary = 151936,
            .positions = 32768,
            .inner = 22016,
            .key_heads = 32,
            .bos = -1,
            .eos = -1},
    Dialect{.name = "qwen3",
            .classes = "Qwen3",
            .biases = Biases::kAsked,
            .head_norms = true,
            .windows = Windows::kByLayer,
            .vocabulary = 151936,
            .positions = 32768,
            .inner = 22016,
            .key_heads = 32,
            .head_features = 128,
            .bos = -1,
            .eos = -1},
};

}  // namespace

std::span<const Dialect> dialects() { return kDialects; }

}  // namespace weft::llama
