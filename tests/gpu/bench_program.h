// weft-gpu bench: the measures of gpu_bench.h as a table or as JSON. Options: --help.
//
// Thread safety: one call at a time.
#pragma once

namespace weft::gpu {

// argv[0] is not looked at. The exit status: 0; 1 where a row could not be measured; 2 with
// a message on bad arguments. Throws StatusError on a bad expression and where there is no GPU.
int bench_program(int argc, char** argv);

}  // namespace weft::gpu
