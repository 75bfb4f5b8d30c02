// weft-gpu bench: the measures of gpu_bench.h as a table or as JSON.
//   --only REGEX     rows whose name the expression is found in
//   --list           their names alone; needs no GPU
//   --runs N         samples of a row (7)
//   --seconds S      that a sample lasts (0.03)
//   --json           one JSON object a line, with all samples
//   --profile        one run a row between cudaProfilerStart and cudaProfilerStop, for a profiler
//   --any-order      as jobs with training.reproducible: none
//   --small          sizes that show that it runs, not how fast
//
// Thread safety: one call at a time.
#pragma once

namespace weft::gpu {

// argv[0] is not looked at. The exit status: 0; 1 where a row could not be measured. Throws
// StatusError on bad arguments and where there is no GPU.
int bench_program(int argc, char** argv);

}  // namespace weft::gpu
