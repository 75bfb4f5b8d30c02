// A checkpoint as the files of a Hugging Face folder, made while they are sent: no file is ever
// whole in memory. config.json, model.safetensors (F32 weights of the trunk and of one task's
// head), tokenizer.json, tokenizer_config.json and what else came with the tokenizer; of a model of
// images preprocessor_config.json instead, of one of recordings beside it. Where the checkpoint has
// an adapter, it is merged into the weights; or it stands alone, as the files of a PEFT folder:
// adapter_config.json and adapter_model.safetensors, with the head if there is one.
//
// Thread safety: make_export is pure; an ExportReader is used by one thread at a time. Ownership:
// values; the source of chunks outlives the reader.
// Invariants: 1. `bytes` is exactly what the reader gives. 2. Tensors stand in the order of their
// names, one directly behind the other. 3. The reader holds at most one chunk for each tile of the
// tensor it is at, and what is merged into that. (Of a weight with DoRA, whose norms come before
// its first element, it reads the chunks twice.)
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "proto/base/status.h"
#include "proto/checkpoint.pb.h"
#include "worker/models/adapter.h"

namespace weft::api {

struct ExportedTensor {
  proto::TensorEntry entry;
  std::vector<proto::TensorEntry> adapter;  // that is merged into it: A, B, with DoRA its magnitude
};

struct ExportedFile {
  std::string name;
  int64_t bytes = 0;
  std::string text;                     // the whole file, or the head of a safetensors file
  std::vector<ExportedTensor> tensors;  // behind the text
  std::vector<proto::ChunkRef> chunks;  // or these
  // Of tensors that have one.
  Adapter adapter;
  ops::WeightLayout layout = ops::WeightLayout::kOutIn;
};

struct Export {
  std::string task;  // whose head is in the files
  std::vector<ExportedFile> files;
};

// `task` empty: the first causal_lm task, else the first. adapter_only: the PEFT folder. Errors: no
// such task (the message lists them), no adapter, tiles that do not cover their tensor
// (kCorruption), an unknown family.
Result<Export> make_export(const proto::CheckpointManifest& manifest, const std::string& task,
                           bool adapter_only = false);

using ChunkSource = std::function<Result<std::string>(const std::string& hash)>;

// Reads a run of chunks from front to back.
class ChunkCursor {
 public:
  ChunkCursor(std::vector<proto::ChunkRef> chunks, const ChunkSource& source)
      : chunks_(std::move(chunks)), source_(source) {}
  // Appends the next `n` bytes; fewer are an error.
  Status append(int64_t n, std::string& out);
  int64_t left() const;

 private:
  std::vector<proto::ChunkRef> chunks_;
  const ChunkSource& source_;
  size_t next_ = 0;
  std::string bytes_;
  size_t used_ = 0;
};

class ExportReader {
 public:
  ExportReader(ExportedFile file, ChunkSource source)
      : file_(std::move(file)), source_(std::move(source)) {}
  ExportReader(const ExportReader&) = delete;
  ExportReader& operator=(const ExportReader&) = delete;

  // Appends about 1 MiB; false: that was the end.
  Result<bool> read(std::string& out);

 private:
  Status open_tensor(const ExportedTensor& tensor);
  void merge(std::string& out, int64_t bytes);
  Status open_adapter(const ExportedTensor& tensor);
  // Its elements from front to back.
  Status read_pieces(const proto::TensorEntry& tensor,
                     const std::function<void(std::span<const float>)>& take) const;
  Result<std::vector<float>> read_whole(const proto::TensorEntry& tensor) const;

  ExportedFile file_;
  const ChunkSource source_;
  bool started_ = false;
  size_t next_tensor_ = 0;
  // The runs still to be read of the open tensor: outer_left_ times round all its tiles.
  std::vector<ChunkCursor> tiles_;
  std::vector<int64_t> run_bytes_;
  int64_t outer_left_ = 0;
  size_t tile_ = 0;
  int64_t run_left_ = 0;
  std::optional<MergedAdapter> merged_;  // of the open tensor
  int64_t elements_ = 0;                 // of it, that were read
};

// config.json's text with the head of `headed`, a classification or an embedding, nullptr: of the
// language model; and the name under which a tensor stands in model.safetensors.
Result<std::string> export_config(const proto::CheckpointManifest& manifest,
                                  const proto::TaskSpec* headed);
// The layers of the classifier's head by their names in the file; nullptr: none.
Result<std::vector<std::string>> export_head_layers(const proto::CheckpointManifest& manifest,
                                                    const proto::TaskSpec* classifier);
std::string export_tensor_name(const proto::CheckpointManifest& manifest, const std::string& name);

// The checkpoint's adapter, and how its family stores what it adapts; rank 0: it has none.
struct ExportedAdapter {
  Adapter adapter;
  ops::WeightLayout layout = ops::WeightLayout::kOutIn;
  std::vector<std::string> peft_targets;
  std::map<std::string, std::string> peft_names;  // of its parts' names in the manifest
  // Names of its parts by that of the weight, as in the manifest; in ExportedTensor's order.
  std::map<std::string, std::vector<std::string>> parts;
};
Result<ExportedAdapter> export_adapter(const proto::CheckpointManifest& manifest);

// tokenizer.json of the byte tokenizer (id = byte value, end of text 256) and the tokenizer_config
// that makes transformers load it.
std::string byte_tokenizer_json(int64_t vocabulary);
std::string tokenizer_config_json(const proto::CheckpointManifest& manifest);

}  // namespace weft::api
