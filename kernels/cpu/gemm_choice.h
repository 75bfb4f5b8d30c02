// Which library computes which class of products.
//
// It follows from the processor alone: the library that was measured to lead on such processors. So
// two runs on machines of one kind give the same bits, however busy they are. A choice changes last
// bits, so whatever has to be repeated exactly elsewhere keeps it (to_string) and sets it again
// (choose_gemm): the trainer's checkpoints do.
//
// Environment: WEFT_GEMM, a choice as to_string writes it, or some of its parts. "measure" lets the
// libraries take turns on a product of each class at the first product: the fastest of five runs
// counts, and the known leader stays unless another is faster by a quarter. An unknown part is
// refused at the first product.
//
// Thread safety: every function from any thread; choose_gemm while no product runs.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "proto/base/status.h"

namespace weft::cpu {

// Of bf16 only: kWidened, converted to fp32 and multiplied by the library of kLarge; kPairs, our
// own by the instructions of AVX512_BF16.
enum class GemmLibrary : uint8_t { kOpenBlas, kOneDnn, kWidened, kPairs };

// Of a single library call (a tile), by its sizes.
enum class GemmClass : uint8_t {
  kLarge,  // fp32
  kSmall,  // fp32 where m n k <= 2^19
  kThin,   // fp32 where a side of the result is below 8
  kBf16,
};
constexpr size_t kGemmClasses = 4;

// Of an fp32 product.
GemmClass gemm_class(int64_t m, int64_t n, int64_t k);

struct GemmChoice {
  std::array<GemmLibrary, kGemmClasses> libraries{};
  GemmLibrary of(GemmClass gemm_class) const { return libraries[static_cast<size_t>(gemm_class)]; }
  bool operator==(const GemmChoice&) const = default;
};

// "large=onednn,small=onednn,thin=openblas,bf16=onednn"
std::string to_string(const GemmChoice& choice);
// Parts that the text leaves out are as in `rest`. Error: an unknown class or
// library, or a library that cannot compute the class.
Result<GemmChoice> parse_gemm_choice(std::string_view text, const GemmChoice& rest);

// In force; decided at the first call. Throws StatusError where WEFT_GEMM is wrong.
GemmChoice gemm_choice();
// From now on, for the whole process. Where this processor has no bf16 products, those are widened
// whatever the choice says.
void choose_gemm(const GemmChoice& choice);

}  // namespace weft::cpu
