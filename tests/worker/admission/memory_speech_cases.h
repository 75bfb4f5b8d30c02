// Jobs of models that hear whose ranks' memory is estimated and measured.
#pragma once

#include "tests/worker/admission/memory_cases.h"

namespace weft::memory_cases {

// Of an encoder and a decoder that hear.
inline constexpr const char* kWhisper =
    "encoder_layers: 3, decoder_layers: 3, encoder_attention_heads: 4, decoder_attention_heads: 4, "
    "d_model: 64, encoder_ffn_dim: 256, decoder_ffn_dim: 256, vocab_size: 500, num_mel_bins: 8, "
    "max_source_positions: 50, max_target_positions: 64, decoder_start_token_id: 1";
inline constexpr const char* kWhisperShortTexts =
    "encoder_layers: 2, decoder_layers: 2, encoder_attention_heads: 4, decoder_attention_heads: 4, "
    "d_model: 64, encoder_ffn_dim: 256, decoder_ffn_dim: 256, vocab_size: 500, num_mel_bins: 8, "
    "max_source_positions: 200, max_target_positions: 16, decoder_start_token_id: 1";
inline constexpr const char* kWhisperWide =
    "encoder_layers: 4, decoder_layers: 4, encoder_attention_heads: 4, decoder_attention_heads: 4, "
    "d_model: 128, encoder_ffn_dim: 512, decoder_ffn_dim: 512, vocab_size: 1000, num_mel_bins: 8, "
    "max_source_positions: 50, max_target_positions: 16, decoder_start_token_id: 1";
// Recordings as long as those of what was published, and as wide.
inline constexpr const char* kWhisperLong =
    "encoder_layers: 2, decoder_layers: 1, encoder_attention_heads: 2, decoder_attention_heads: 2, "
    "d_model: 96, encoder_ffn_dim: 384, decoder_ffn_dim: 384, vocab_size: 500, num_mel_bins: 80, "
    "max_source_positions: 1500, max_target_positions: 64, decoder_start_token_id: 1";
inline Case speech(const char* name, const char* training, MeshDegrees mesh = {}, int zero = 0,
                   const char* model = kWhisper) {
  return {name, model, training, mesh, "speech_recognition", zero, kBucketBytes, "whisper"};
}

inline const Case kSpeechCases[] = {
    speech("plain", "batch_size: 8"),
    speech("short texts", "batch_size: 4", {}, 0, kWhisperShortTexts),
    speech("long", "batch_size: 2", {}, 0, kWhisperLong),
    speech("and tensor 2", "batch_size: 2", {1, 1, 2}, 0, kWhisperLong),
    speech("and sequence 2, bf16", "batch_size: 2, precision: bf16", {1, 2, 1}, 0, kWhisperLong),
    speech("selective", "batch_size: 8, activation_checkpointing: selective"),
    speech("full", "batch_size: 8, activation_checkpointing: full"),
    speech("bf16", "batch_size: 8, precision: bf16"),
    speech("fp16", "batch_size: 8, precision: fp16"),
    speech("rounds", "batch_size: 8, micro_batch_size: 2"),
    speech("wide", "batch_size: 4", {}, 0, kWhisperWide),
    speech("tensor 2", "batch_size: 8", {1, 1, 2}),
    speech("data 2", "batch_size: 4", {2, 1, 1}, 0, kWhisperWide),
    speech("zero 1", "batch_size: 4", {2, 1, 1}, 1, kWhisperWide),
    speech("zero 2", "batch_size: 4", {4, 1, 1}, 2, kWhisperWide),
    speech("zero 3", "batch_size: 4", {2, 1, 1}, 3, kWhisperWide),
    speech("2 x 1 x 2, zero 3", "batch_size: 4", {2, 1, 2}, 3, kWhisperWide),
    speech("sequence 2", "batch_size: 8", {1, 2, 1}),
    speech("and short texts", "batch_size: 4", {1, 2, 1}, 0, kWhisperShortTexts),
    speech("1 x 2 x 2, zero 3", "batch_size: 4", {1, 2, 2}, 3, kWhisperWide),
};

// Of these, cut into 8 blocks.
inline constexpr const char* kWhisperEven =
    "encoder_layers: 3, decoder_layers: 3, encoder_attention_heads: 8, decoder_attention_heads: 8, "
    "d_model: 64, encoder_ffn_dim: 256, decoder_ffn_dim: 256, vocab_size: 504, num_mel_bins: 8, "
    "max_source_positions: 50, max_target_positions: 64, decoder_start_token_id: 1";
inline constexpr const char* kWhisperEvenWide =
    "encoder_layers: 4, decoder_layers: 4, encoder_attention_heads: 8, decoder_attention_heads: 8, "
    "d_model: 128, encoder_ffn_dim: 512, decoder_ffn_dim: 512, vocab_size: 1000, num_mel_bins: 8, "
    "max_source_positions: 50, max_target_positions: 16, decoder_start_token_id: 1";
inline const Case kBlockedSpeechCases[] = {
    speech("plain", "reproducible: topology, batch_size: 8", {}, 0, kWhisperEven),
    speech("bf16", "reproducible: topology, batch_size: 8, precision: bf16", {}, 0, kWhisperEven),
    speech("full", "reproducible: topology, batch_size: 8, activation_checkpointing: full", {}, 0,
           kWhisperEven),
    speech("tensor 2", "reproducible: topology, batch_size: 8", {1, 1, 2}, 0, kWhisperEven),
    speech("data 2", "reproducible: topology, batch_size: 8", {2, 1, 1}, 0, kWhisperEvenWide),
    speech("sequence 2", "reproducible: topology, batch_size: 8", {1, 2, 1}, 0, kWhisperEven),
    speech("zero 1", "reproducible: topology, batch_size: 8", {2, 1, 1}, 1, kWhisperEvenWide),
    speech("zero 3", "reproducible: topology, batch_size: 8", {2, 1, 1}, 3, kWhisperEvenWide),
    speech("2 x 1 x 2, zero 3", "reproducible: topology, batch_size: 8", {2, 1, 2}, 3,
           kWhisperEvenWide),
};

}  // namespace weft::memory_cases
