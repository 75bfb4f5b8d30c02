// Runs golden cases on a mesh and tells how far off each value is.
//
// Thread safety: the rank's compute thread; run_case is a collective of the mesh's world.
// Invariants: 1. the report is the same on every rank. 2. every tensor is compared shard by shard
// where it lies; nothing is gathered.
#pragma once

#include <string>
#include <vector>

#include "worker/golden/golden_case.h"

namespace weft::golden {

// Relative errors, max|a - b| / max|b| over a whole tensor, against these bars in fp32. In bf16 the
// bar is twice the error that PyTorch itself has in bf16, as bf16.json holds it. In float64 an
// error is what lies beyond the rounding with which the expected value is stored: half of the last
// place of a float32, or, of a number of trajectory.json with ten digits, of the tenth.
inline constexpr double kBar = 2e-5;        // outputs, loss, gradients, trajectory
inline constexpr double kZeroBar = 1e-6;    // of zero gradients, relative to the largest gradient
inline constexpr double kNormBar = 1e-5;    // parameter norms after training
inline constexpr double kMergedBar = 1e-5;  // weights with the adapter in them; in fp32 only
inline constexpr double kRateBar = 1e-6;    // learning rates
inline constexpr double kBf16Share = 2;
inline constexpr double kDoubleBar = 1e-12;  // float64: everything

struct Deviation {
  std::string what;  // "logits", "grad.transformer.wte.weight", "step 7 loss", ...
  double error = 0;
  double bar = 0;
  bool within() const { return error <= bar; }  // NaN is not
};

struct Report {
  std::string name;
  std::vector<Deviation> deviations;
  bool passed() const;
  // The deviation nearest to, or furthest beyond, its bar. Not empty once a case ran.
  const Deviation& worst() const;
};

// precision: kF32, kBF16 or kF64, the last on one rank alone. Throws StatusError where the model
// cannot be made or loaded on this mesh, or bf16 is asked of a case without a bf16.json.
Report run_case(Rank& rank, const Case& golden, DType precision = DType::kF32);

}  // namespace weft::golden
