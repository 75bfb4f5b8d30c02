// Low-rank adapters (LoRA, Hu et al. 2021) with the meaning that PEFT's LoraConfig has: beside a
// linear map W of a block, which is frozen, stand A [rank, in] and B [out, rank], which are
// trained,
//
//   y = W x + scaling * B A dropout(x),   scaling = alpha / rank, or alpha / sqrt(rank),
//
// A drawn uniformly within 1 / sqrt(in) (Kaiming, a = sqrt 5), B zero at first. With DoRA (Liu et
// al. 2024) there is a third, magnitude [out], which is the norm of each output's row of W at
// first:
//
//   y = magnitude / norm * (W x + scaling * B A x),   norm = that of W + scaling * B A, a constant
//
// How a map is computed and shared out over the mesh stands in worker/parallel/low_rank.h.
//
// Names: of "transformer.h.0.attn.c_attn.weight" they are
// "transformer.h.0.attn.c_attn.lora_A.weight", "....lora_B.weight" and "....lora_magnitude_vector",
// in PEFT's files behind "base_model.model.".
//
// Thread safety: pure functions and values.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/ops/ops.h"
#include "proto/base/status.h"
#include "worker/models/parameter.h"

namespace weft::proto {
class AdapterSpec;
}

namespace weft {

class ModelFamily;
struct ModelConfig;

struct Adapter {
  int64_t rank = 0;  // 0: there is none
  double alpha = 0;
  double dropout = 0;
  bool rslora = false;  // scaled by the root of the rank (Kalajdzievski 2023)
  bool dora = false;
  // Ends of the names of linear maps, from a dot on: "c_attn", "mlp.c_proj".
  std::vector<std::string> targets;

  double scaling() const;
  // Parameters beside a map.
  size_t parts() const { return dora ? 3 : 2; }
};

// PEFT's word for all linear maps of the blocks.
inline constexpr std::string_view kAllLinear = "all-linear";
// Before the names of a PEFT folder's tensors.
inline constexpr std::string_view kPeftPrefix = "base_model.model.";

// What a finished job's `adapter` says of this model: no targets are the family's own, all-linear
// is each of them, whole names of every block's mean the same. Error: a target that is none of the
// model's linear maps, or that is one of some blocks only.
Result<Adapter> find_adapter(const proto::AdapterSpec& spec, const ModelFamily& family,
                             const ModelConfig& config);
Result<Adapter> find_adapter(Adapter adapter, const ModelFamily& family, const ModelConfig& config);

// A family's plan as it is with the configuration's adapter: every parameter is frozen, and those
// of the adapter follow their block's, A, B and the magnitude of one target behind each other.
std::vector<ParameterInfo> adapted_plan(std::vector<ParameterInfo> plan, const ModelConfig& config,
                                        ops::WeightLayout layout);

// The configuration's adapter's targets by the names that PEFT finds linear maps by, those in
// memory.
std::vector<std::string> peft_targets(const ModelFamily& family, const ModelConfig& config);

// What of an adapter a parameter is.
enum class AdapterPart { kNone, kInput, kOutput, kMagnitude };  // A, B
AdapterPart adapter_part(const ParameterInfo& info);

// Sums of squares of what a weight maps to each of its outputs.
class OutputSquares {
 public:
  OutputSquares(ops::WeightLayout layout, int64_t outputs, int64_t columns)
      : of_rows_(layout == ops::WeightLayout::kOutIn),
        columns_(columns),
        sums_(static_cast<size_t>(outputs)) {}
  // Of its elements [first, first + size), row-major. In ascending order the sums' bits do not
  // depend on the ranges.
  void add(int64_t first, std::span<const float> elements);
  std::vector<double>& sums() { return sums_; }

 private:
  bool of_rows_;
  int64_t columns_;
  std::vector<double> sums_;
};

// What an adapter makes of a weight, in the weight's layout [rows, columns]: W + scaling * B A,
// with DoRA each output of it times magnitude / norm.
class MergedAdapter {
 public:
  // a [rank, in], b [out, rank], both whole and row-major.
  MergedAdapter(const Adapter& adapter, ops::WeightLayout layout, std::span<const float> a,
                std::span<const float> b);
  // DoRA's norms: before anything is merged all elements come by, in ascending order, the last of
  // them before rescale.
  void measure(int64_t first, std::span<const float> weight);
  void rescale(std::span<const float> magnitude);
  // Makes the weight's elements [first, first + size), row-major, those of the merged one. An
  // element's bits do not depend on the range.
  void merge_into(int64_t first, std::span<float> weight) const;

 private:
  bool out_in_;
  int64_t rank_, columns_;
  std::vector<float> left_, right_;  // [rows, rank], scaled; [rank, columns]
  OutputSquares squares_;
  std::vector<float> factors_;  // of the outputs; empty: 1
};

// The adapter_config.json of a PEFT folder: its text, and back. base_model: the model's name or
// path; task_type: PEFT's name of the head, CAUSAL_LM, SEQ_CLS or TOKEN_CLS, empty: it has none;
// head_layers: what is trained whole of it, by its layers' names (written, not read).
struct PeftFolder {
  Adapter adapter;
  std::string base_model;
  std::string task_type = "CAUSAL_LM";
  std::vector<std::string> head_layers;
};
std::string peft_config_json(const PeftFolder& folder, ops::WeightLayout layout);
// Errors name the key that means something this trainer does not compute.
Result<PeftFolder> parse_peft_config(std::string_view json);

}  // namespace weft
