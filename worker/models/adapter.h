// Low-rank adapters (LoRA, Hu et al. 2021) with the meaning that PEFT's LoraConfig has: beside a
// linear map W of a block, which is frozen, stand A [rank, in] and B [out, rank], which are
// trained,
//
//   y = W x + scaling * B A dropout(x),   scaling = alpha / rank, or alpha / sqrt(rank),
//
// A drawn uniformly within 1 / sqrt(in) (Kaiming, a = sqrt 5), B zero at first. How a map is
// computed and shared out over the mesh stands in worker/parallel/low_rank.h.
//
// Names: of "transformer.h.0.attn.c_attn.weight" they are
// "transformer.h.0.attn.c_attn.lora_A.weight" and "....lora_B.weight", in PEFT's files behind
// "base_model.model.".
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
  // Ends of the names of linear maps, from a dot on: "c_attn", "mlp.c_proj".
  std::vector<std::string> targets;

  double scaling() const;
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
// of the adapter follow their block's, A and B of one target behind the other.
std::vector<ParameterInfo> adapted_plan(std::vector<ParameterInfo> plan, const ModelConfig& config,
                                        ops::WeightLayout layout);

// Whether it is an adapter's A.
bool maps_input(const ParameterInfo& info);

// scaling * B A, in the layout of the weight that it is added to: [rows, columns].
class MergedDelta {
 public:
  // a [rank, in], b [out, rank], both whole and row-major.
  MergedDelta(const Adapter& adapter, ops::WeightLayout layout, std::span<const float> a,
              std::span<const float> b);
  // Adds its elements [first, first + size), row-major, to those of the weight. An element's bits
  // do not depend on the range.
  void add_to(int64_t first, std::span<float> weight) const;

 private:
  int64_t rank_, columns_;
  std::vector<float> left_, right_;  // [rows, rank], scaled; [rank, columns]
};

// The adapter_config.json of a PEFT folder: its text, and back. model: the base model's name or
// path; classifies: the model has a head of classes, which is trained whole.
struct PeftFolder {
  Adapter adapter;
  std::string base_model;
  bool classifies = false;
};
std::string peft_config_json(const PeftFolder& folder, ops::WeightLayout layout);
// Errors name the key that means something this trainer does not compute.
Result<PeftFolder> parse_peft_config(std::string_view json);

}  // namespace weft
