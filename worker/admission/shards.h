// The parameters of a job as one rank holds them, before anything is started.
//
// Thread safety: pure functions.
#pragma once

#include <span>
#include <vector>

#include "worker/models/model.h"
#include "worker/optimizer/buckets.h"

namespace weft::proto {
class JobSpec;
class TrainingSpec;
}  // namespace weft::proto

namespace weft {

struct ShardSize {
  int64_t unit = 0, elements = 0;  // ParameterInfo::unit; of this rank's part
  bool whole = false;              // every rank of the tensor axis holds all of it
  bool matrix = false;             // two dimensions or more
  LookedUp looked_up = LookedUp::kNever;
  bool joined = false;            // BucketItem::joined
  int copy = 0, copies = 1;       // as Shard's
  bool keep_fp32 = false;         // ParameterInfo::keep_fp32
  bool behind_attention = false;  // ParameterInfo::behind_attention
  bool trained = true;            // ParameterInfo::trained
  bool reached = true;            // ParameterInfo::reached
  AdapterPart adapter_part = AdapterPart::kNone;
  int64_t repeats = 1;  // it stands for so many, of units that are alike and follow each other
  bool operator==(const ShardSize&) const = default;
};

// Those of rank `tensor_index` of the tensor axis, in the optimizer's order: the trunk's, then each
// task's head. The second block stands for all further ones (the first is complete last, so its
// buckets differ): a model of 100,000 layers is looked at as fast as one of two. `spec` is
// finished.
std::vector<ShardSize> shards_of(const ModelFamily& family, const ModelConfig& config,
                                 const proto::JobSpec& spec, int tensor_index);

// Elements of the whole model, each once.
struct ParameterCount {
  int64_t all = 0, trained = 0;
};
ParameterCount count_parameters(const ModelFamily& family, const ModelConfig& config,
                                const proto::JobSpec& spec);

// How many linear maps of a block have an adapter.
struct AdaptedMaps {
  int64_t columns = 0, rows = 0;  // before its attention's scores and behind them
  int64_t mlp_columns = 0, mlp_rows = 0;
  bool rescaled = false;                 // by DoRA
  int64_t outputs = 0, mlp_outputs = 0;  // then: of the columns, on this rank
  int64_t all() const { return columns + rows + mlp_columns + mlp_rows; }
};
AdaptedMaps adapted_maps(std::span<const ShardSize> shards);

// As the layout of buckets takes them; units that are alike have buckets that are, too.
std::vector<BucketItem> bucket_items(std::span<const ShardSize> shards);

// Of one of those buckets: for how many it stands.
int64_t repeats_of(const Bucket& bucket, std::span<const ShardSize> shards);

// One of a model's stacks of blocks.
struct StackShape {
  int64_t layers = 0;
  int64_t length = 0;       // tokens of a row, and
  int64_t predictions = 0;  // behind them queries of what is predicted (Predictions)
  int64_t source = 0;       // of a decoder that attends to a source: tokens of that
  int64_t queries() const { return length + predictions; }
};
// That which the logits follow, and of an encoder-decoder that of its encoder.
StackShape last_stack(const ModelConfig& config, const proto::JobSpec& spec);
StackShape encoder_stack(const ModelConfig& config, const proto::TrainingSpec& training);

// What the passes compute in.
DType precision_of(const proto::JobSpec& spec);

// Of topology-invariant training; else 0.
int blocks_of(const proto::JobSpec& spec);

// Whether a task of the job has the loss over the vocabulary.
bool models_language(const proto::JobSpec& spec);

}  // namespace weft
