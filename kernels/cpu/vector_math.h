// The functions of the C library that loops in the files of the levels may call: glibc has vector
// versions of them (libmvec, glibc 2.35), and a loop compiles to those of its file's level. Not to
// be included together with <cmath>.
// Thread safety: pure functions.
#pragma once

extern "C" {
#define WEFT_VECTOR_VERSIONS __attribute__((simd("notinbranch"), const, nothrow))
WEFT_VECTOR_VERSIONS float logf(float x);
WEFT_VECTOR_VERSIONS float expm1f(float x);
WEFT_VECTOR_VERSIONS float powf(float x, float y);
#undef WEFT_VECTOR_VERSIONS
}
