// Which instruction set the dispatched loops of kernels/cpu run with: the best that the processor
// has, or a lower one that WEFT_CPU_LEVEL names (v2, v3, v4, bf16, amx).
//
// Thread safety: from any thread; found once a process.
#pragma once

#include <cstdint>
#include <string_view>

namespace weft::cpu {

// x86-64-v2 (SSE4.2), -v3 (AVX2, FMA, F16C), -v4 (AVX-512), v4 with AVX512_BF16, and that with
// AMX's tiles of bf16.
enum class Level : uint8_t { kV2 = 2, kV3, kV4, kBf16, kAmx };

// For kAmx also whether the system lets this process use tiles, which it is asked for here.
bool supported(Level level);
// Throws StatusError naming WEFT_CPU_LEVEL where it is no level or one that the processor lacks.
Level level();
// As level() for a value of the variable; empty: the best there is.
Level level_of(std::string_view name);
std::string_view name_of(Level level);

}  // namespace weft::cpu
