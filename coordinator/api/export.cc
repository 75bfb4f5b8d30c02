#include "coordinator/api/export.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <span>

#include "proto/json/job_rules.h"
#include "proto/json/writer.h"
#include "worker/models/head.h"

namespace weft::api {
namespace {

constexpr int64_t kFloatBytes = 4;

Result<const proto::TaskSpec*> choose_task(const proto::CheckpointManifest& manifest,
                                           const std::string& name) {
  const proto::TaskSpec* chosen = nullptr;
  std::string known;
  for (const proto::TaskSpec& task : manifest.tasks()) {
    known += (known.empty() ? "" : ", ") + task.name();
    const bool wanted = name.empty() ? models_language(task) : task.name() == name;
    if (wanted && chosen == nullptr) chosen = &task;
  }
  if (chosen == nullptr && name.empty() && manifest.tasks_size() > 0) chosen = &manifest.tasks(0);
  if (chosen == nullptr && !name.empty()) {
    return fail(Status::invalid("task", name, "must be one of this checkpoint's tasks: " + known));
  }
  return chosen;  // nullptr: a checkpoint without tasks is a language model
}

Status check_tiles(const proto::TensorEntry& tensor) {
  const auto broken = [&](const std::string& why) {
    return Status(Code::kCorruption, fmt::format("tensor {}: {}", tensor.name(), why));
  };
  if (tensor.dtype() != "F32") return broken("dtype " + tensor.dtype() + " instead of F32");
  if (tensor.tiles().empty()) return broken("no tiles");
  const int dim = std::max(tensor.tiles(0).dim(), 0);
  if (dim >= std::max(tensor.shape_size(), 1)) return broken("a tile of a dimension it lacks");
  int64_t others = kFloatBytes;
  for (int i = 0; i < tensor.shape_size(); ++i) {
    if (i != dim) others *= tensor.shape(i);
  }
  int64_t at = 0;
  for (const proto::Tile& tile : tensor.tiles()) {
    if (std::max(tile.dim(), 0) != dim) return broken("tiles of two dimensions");
    if (tile.start() != at) return broken(fmt::format("no tile starts at {}", at));
    int64_t bytes = 0;
    for (const proto::ChunkRef& chunk : tile.chunks()) bytes += chunk.size();
    if (bytes != tile.length() * others) return broken("a tile's chunks have another size than it");
    at += tile.length();
  }
  const int64_t extent = tensor.shape_size() == 0 ? 1 : tensor.shape(dim);
  return at == extent ? Status() : broken(fmt::format("its tiles end at {} of {}", at, extent));
}

// The weights of trunk and chosen head under their names in the file, in the order of these.
using NamedTensors = std::map<std::string, ExportedTensor>;
Result<NamedTensors> choose_tensors(const proto::CheckpointManifest& manifest,
                                    const proto::TaskSpec* task) {
  NamedTensors chosen;
  for (const proto::TensorEntry& entry : manifest.tensors()) {
    if (entry.role() != proto::TENSOR_ROLE_WEIGHT) continue;
    std::string name;
    for (const proto::TaskSpec& owner : manifest.tasks()) {
      if (!entry.name().starts_with(owner.name() + ".")) continue;
      name = entry.name().substr(owner.name().size() + 1);
      if (task == nullptr || owner.name() != task->name()) name = "";
      break;
    }
    const bool head = std::any_of(manifest.tasks().begin(), manifest.tasks().end(), [&](auto& t) {
      return entry.name().starts_with(t.name() + ".");
    });
    if (head && name.empty()) continue;
    if (!head) name = export_tensor_name(manifest, entry.name());
    proto::TensorEntry tensor = entry;
    std::sort(tensor.mutable_tiles()->begin(), tensor.mutable_tiles()->end(),
              [](const proto::Tile& a, const proto::Tile& b) { return a.start() < b.start(); });
    WEFT_RETURN_IF_ERROR(check_tiles(tensor).with_prefix(manifest.id() + ": "));
    chosen.emplace(std::move(name), ExportedTensor{std::move(tensor), {}});
  }
  return chosen;
}

// W [out, in], or turned; A [rank, in], B [out, rank], magnitude [out].
bool adapts(const ExportedAdapter& adapter, const proto::TensorEntry& weight,
            std::span<const proto::TensorEntry> parts) {
  const auto shaped = [](const proto::TensorEntry& tensor, const std::vector<int64_t>& shape) {
    return std::ranges::equal(tensor.shape(), shape);
  };
  if (weight.shape_size() != 2 || adapter.adapter.rank < 1) return false;
  const bool out_in = adapter.layout == ops::WeightLayout::kOutIn;
  const int64_t out = weight.shape(out_in ? 0 : 1), in = weight.shape(out_in ? 1 : 0);
  return shaped(parts[0], {adapter.adapter.rank, in}) &&
         shaped(parts[1], {out, adapter.adapter.rank}) &&
         (parts.size() < 3 || shaped(parts[2], {out}));
}

// Each adapter into the weight that it adapts.
Status merge(const ExportedAdapter& adapter, NamedTensors& tensors) {
  std::map<std::string, proto::TensorEntry> inner;
  std::erase_if(tensors, [&](auto& named) {
    const std::string& name = named.second.entry.name();
    const bool of_adapter = std::ranges::any_of(adapter.parts, [&](const auto& each) {
      return std::ranges::find(each.second, name) != each.second.end();
    });
    if (of_adapter) inner[name] = std::move(named.second.entry);
    return of_adapter;
  });
  for (auto& [name, tensor] : tensors) {
    const auto parts = adapter.parts.find(tensor.entry.name());
    if (parts == adapter.parts.end()) continue;
    for (const std::string& part : parts->second) {
      if (!inner.contains(part)) {
        return Status(Code::kCorruption, "the checkpoint lacks the adapter of " + name);
      }
      tensor.adapter.push_back(inner.at(part));
    }
    if (!adapts(adapter, tensor.entry, tensor.adapter)) {
      return Status(Code::kCorruption, "the adapter of " + name + " has not its shape and rank");
    }
  }
  return {};
}

// Those of the adapter and of the heads, by PEFT's names. Of a trunk alone, as transformers'
// BertModel, these lack what stands before its names in a model with a head: "bert.".
NamedTensors adapter_tensors(const ExportedAdapter& adapter, bool trunk_alone,
                             NamedTensors tensors) {
  NamedTensors chosen;
  for (auto& [name, tensor] : tensors) {
    const bool of_head = name != tensor.entry.name();
    const auto part = adapter.peft_names.find(tensor.entry.name());
    if (!of_head && part == adapter.peft_names.end()) continue;
    const std::string& in_memory = of_head ? name : part->second;
    const size_t from = trunk_alone ? in_memory.find('.') + 1 : 0;
    chosen.emplace(std::string(kPeftPrefix) + in_memory.substr(from), std::move(tensor));
  }
  return chosen;
}

int64_t tensor_bytes(const proto::TensorEntry& tensor) {
  int64_t bytes = kFloatBytes;
  for (const int64_t extent : tensor.shape()) bytes *= extent;
  return bytes;
}

ExportedFile safetensors_file(std::string file_name, NamedTensors tensors,
                              const ExportedAdapter& adapter) {
  JsonWriter head;
  head.begin_object().key("__metadata__").begin_object().key("format").string("pt").end_object();
  int64_t at = 0;
  for (const auto& [name, exported] : tensors) {
    const proto::TensorEntry& tensor = exported.entry;
    head.key(name).begin_object().key("dtype").string(tensor.dtype()).key("shape").begin_array();
    for (const int64_t extent : tensor.shape()) head.integer(extent);
    head.end_array().key("data_offsets").begin_array().integer(at);
    at += tensor_bytes(tensor);
    head.integer(at).end_array().end_object();
  }
  head.end_object();
  std::string json = head.take();
  json.resize((json.size() + 7) / 8 * 8, ' ');
  ExportedFile file;
  file.name = std::move(file_name);
  file.adapter = adapter.adapter;
  file.layout = adapter.layout;
  for (int shift = 0; shift < 64; shift += 8) {  // u64, little-endian
    file.text += static_cast<char>((uint64_t{json.size()} >> shift) & 0xff);
  }
  file.text += json;
  file.bytes = static_cast<int64_t>(file.text.size()) + at;
  for (auto& [name, tensor] : tensors) file.tensors.push_back(std::move(tensor));
  return file;
}

// PEFT's type of a task's head; it has none of an image's classes, nor of choices.
const char* peft_task(const proto::TaskSpec* task) {
  if (task != nullptr && embeds(*task)) return "FEATURE_EXTRACTION";
  if (task != nullptr && finds_answers(*task)) return "QUESTION_ANS";
  if (task == nullptr || !classifies(*task)) return "CAUSAL_LM";
  const std::optional<HeadKind> kind = head_kind(task_type_name(*task));
  if (kind == HeadKind::kImage || kind == HeadKind::kChoice) return "";
  return kind == HeadKind::kToken ? "TOKEN_CLS" : "SEQ_CLS";
}

ExportedFile text_file(std::string name, std::string text) {
  ExportedFile file;
  file.name = std::move(name);
  file.bytes = static_cast<int64_t>(text.size());
  file.text = std::move(text);
  return file;
}

ExportedFile stored_file(std::string name, const proto::ObjectFile& stored) {
  ExportedFile file;
  file.name = std::move(name);
  file.bytes = stored.size();
  file.chunks.assign(stored.chunks().begin(), stored.chunks().end());
  return file;
}

// What came with the tokenizer, and of a model of images or recordings the preprocessor's settings.
void add_extra_files(const proto::CheckpointManifest& manifest, Export& out) {
  std::set<std::string> names;
  for (const ExportedFile& file : out.files) names.insert(file.name);
  for (const proto::ObjectFile& extra : manifest.extra_files()) {
    const std::string name = extra.path().substr(extra.path().rfind('/') + 1);
    if (name.empty() || name == "." || name == ".." || !names.insert(name).second) continue;
    out.files.push_back(stored_file(name, extra));
  }
}

void add_tokenizer(const proto::CheckpointManifest& manifest, Export& out) {
  if (manifest.tokenizer().path().empty()) {
    int64_t vocabulary = 0;
    const auto& fields = manifest.config().fields();
    if (const auto it = fields.find("vocab_size"); it != fields.end()) {
      vocabulary = static_cast<int64_t>(it->second.number_value());
    }
    out.files.push_back(text_file("tokenizer.json", byte_tokenizer_json(vocabulary)));
  } else {
    out.files.push_back(stored_file("tokenizer.json", manifest.tokenizer()));
  }
  add_extra_files(manifest, out);
  constexpr auto* kConfig = "tokenizer_config.json";
  if (std::ranges::find(out.files, kConfig, &ExportedFile::name) == out.files.end()) {
    out.files.push_back(text_file(kConfig, tokenizer_config_json(manifest)));
  }
}

// What sentence-transformers reads beside transformers' files: the model, the mean of its hidden
// states, and that of length 1.
void add_sentence_modules(const proto::CheckpointManifest& manifest, Export& out) {
  JsonWriter modules(2);
  modules.begin_array();
  const std::array<std::pair<const char*, const char*>, 3> parts{
      {{"", "Transformer"}, {"1_Pooling", "Pooling"}, {"2_Normalize", "Normalize"}}};
  for (size_t i = 0; i < parts.size(); ++i) {
    modules.begin_object().key("idx").integer(static_cast<int64_t>(i));
    modules.key("name").string(std::to_string(i)).key("path").string(parts[i].first);
    modules.key("type").string(std::string("sentence_transformers.models.") + parts[i].second);
    modules.end_object();
  }
  modules.end_array();
  out.files.push_back(text_file("modules.json", modules.take() + "\n"));
  int64_t hidden = 0;
  for (const char* key : {"hidden_size", "dim", "d_model"}) {
    const auto found = manifest.config().fields().find(key);
    if (found == manifest.config().fields().end()) continue;
    hidden = static_cast<int64_t>(found->second.number_value());
  }
  JsonWriter pooling(2);
  pooling.begin_object().key("word_embedding_dimension").integer(hidden);
  for (const char* mode : {"cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"}) {
    pooling.key(std::string("pooling_mode_") + mode)
        .boolean(std::string_view(mode) == "mean_tokens");
  }
  out.files.push_back(text_file("1_Pooling/config.json", pooling.end_object().take() + "\n"));
}

}  // namespace

Result<Export> make_export(const proto::CheckpointManifest& manifest, const std::string& task,
                           bool adapter_only) {
  WEFT_ASSIGN_OR_RETURN(const proto::TaskSpec* chosen, choose_task(manifest, task));
  Export out;
  out.task = chosen == nullptr ? "" : chosen->name();
  const bool gives_vectors = chosen != nullptr && embeds(*chosen);
  const bool gives_answers = chosen != nullptr && finds_answers(*chosen);
  const bool has_head = gives_answers || (chosen != nullptr && classifies(*chosen));
  WEFT_ASSIGN_OR_RETURN(std::string config,
                        export_config(manifest, has_head || gives_vectors ? chosen : nullptr));
  WEFT_ASSIGN_OR_RETURN(auto tensors, choose_tensors(manifest, chosen));
  WEFT_ASSIGN_OR_RETURN(const ExportedAdapter adapter, export_adapter(manifest));
  if (adapter_only && adapter.adapter.rank == 0) {
    return fail(Status::invalid("adapter", "true",
                                "must be left out: " + manifest.id() + " was trained without one"));
  }
  if (adapter_only && chosen != nullptr && chosen->type() == proto::TASK_TYPE_MASKED_LM) {
    return fail(
        Status::invalid("adapter", "true",
                        "must be left out: PEFT saves modules, and a masked_lm's head has a "
                        "bias that is none"));
  }
  if (adapter_only) {
    WEFT_ASSIGN_OR_RETURN(const std::vector<std::string> head,
                          export_head_layers(manifest, has_head ? chosen : nullptr));
    PeftFolder folder{adapter.adapter, manifest.adapter().base_model(), peft_task(chosen), head};
    folder.adapter.targets = adapter.peft_targets;
    out.files.push_back(text_file("adapter_config.json", peft_config_json(folder, adapter.layout)));
    out.files.push_back(
        safetensors_file("adapter_model.safetensors",
                         adapter_tensors(adapter, gives_vectors, std::move(tensors)), {}));
    return out;
  }
  if (has_head) tensors.erase("lm_head.weight");
  WEFT_RETURN_IF_ERROR(merge(adapter, tensors).with_prefix(manifest.id() + ": "));
  out.files.push_back(text_file("config.json", std::move(config)));
  out.files.push_back(safetensors_file("model.safetensors", std::move(tensors), adapter));
  const bool of_images = std::ranges::any_of(
      manifest.tasks(), [](const proto::TaskSpec& each) { return sees_images(each); });
  of_images ? add_extra_files(manifest, out) : add_tokenizer(manifest, out);
  if (gives_vectors) add_sentence_modules(manifest, out);
  return out;
}

}  // namespace weft::api
