// What a program settles before its first kernel: what the environment says of the kernels,
// WEFT_CPU_LEVEL (level.h) and WEFT_GEMM (gemm_choice.h), and the libraries' buffers.
// Thread safety: any thread.
#pragma once

namespace weft::cpu {

// Decides by both. Programs call it before the first kernel, because inside one, on a thread of the
// pool, nobody could answer for a wrong value. Throws StatusError naming variable, value and rule.
void read_environment();

// Sets aside the buffers of products for `threads` that multiply at a time. OpenBLAS takes 128 MiB
// of address space for each such thread, of which a product touches a few, at its first product,
// and tries for ever where that is refused: call it before memory is limited.
void reserve_buffers(int threads);

}  // namespace weft::cpu
