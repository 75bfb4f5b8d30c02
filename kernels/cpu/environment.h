// What the environment says of the kernels: WEFT_CPU_LEVEL (level.h) and WEFT_GEMM (gemm_choice.h).
// Thread safety: any thread.
#pragma once

namespace weft::cpu {

// Decides by both. Programs call it before the first kernel, because inside one, on a thread of the
// pool, nobody could answer for a wrong value. Throws StatusError naming variable, value and rule.
void read_environment();

}  // namespace weft::cpu
