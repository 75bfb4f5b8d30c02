#include "coordinator/service_inputs.h"

#include <algorithm>
#include <optional>

namespace weft {
namespace {

// An uploaded object's files, read chunk by chunk.
class ObjectFiles final : public InputFiles {
 public:
  ObjectFiles(const Content& content, proto::ObjectManifest manifest)
      : content_(content), manifest_(std::move(manifest)) {}

  std::vector<std::string> names() const override {  // the manifest's are sorted
    std::vector<std::string> names;
    for (const auto& file : manifest_.files()) names.push_back(file.path());
    return names;
  }
  std::optional<int64_t> size(const std::string& name) const override {
    const proto::ObjectFile* file = find(name);
    return file == nullptr ? std::nullopt : std::optional<int64_t>(file->size());
  }
  Result<std::string> read(const std::string& name, int64_t offset, int64_t length) const override {
    std::string bytes;
    const int64_t end = offset + length;
    int64_t start = 0;  // of the chunk
    for (const proto::ChunkRef& chunk : find(name)->chunks()) {
      const int64_t from = std::max(offset, start);
      const int64_t to = std::min(end, start + chunk.size());
      if (from < to) {
        WEFT_ASSIGN_OR_RETURN(const std::string piece, content_.get_chunk(chunk.hash()));
        bytes += piece.substr(static_cast<size_t>(from - start), static_cast<size_t>(to - from));
      }
      start += chunk.size();
    }
    if (static_cast<int64_t>(bytes.size()) == length) return bytes;
    return fail(Code::kCorruption, manifest_.id() + ": " + name + " has lost some bytes");
  }

 private:
  const proto::ObjectFile* find(const std::string& name) const {
    const auto it = std::find_if(manifest_.files().begin(), manifest_.files().end(),
                                 [&](const auto& file) { return file.path() == name; });
    return it == manifest_.files().end() ? nullptr : &*it;
  }

  const Content& content_;
  const proto::ObjectManifest manifest_;
};

Status not_here(const std::string& field, const std::string& value, const std::string& what) {
  return Status(Code::kInvalidArgument, field + ": nothing is stored under this id")
      .with_field(field)
      .with_value(value)
      .with_rule("must be the id of " + what +
                 "; upload it first (the command line uploads the paths of a job file)");
}

Status check_object_ref(const JobStore& store, const std::string& field, const std::string& value) {
  if (value.empty()) return {};
  const bool known = value.starts_with("obj-") && store.object(value).has_value();
  return known ? Status() : not_here(field, value, "an uploaded object (obj-...)");
}

// What model.from names here.
struct StoredModel {
  std::optional<proto::CheckpointManifest> base;
  std::optional<ObjectFiles> files;

  Status find(const JobStore& store, const Content& content, const std::string& from,
              ModelInputs& inputs) {
    if (from.empty()) return {};
    if (from.starts_with("ckpt-")) {
      auto manifest = store.checkpoint(from);
      if (!manifest) return not_here("model.from", from, "a checkpoint (ckpt-...)");
      inputs.base = &base.emplace(std::move(*manifest));
      return {};
    }
    auto object = store.object(from);
    if (!from.starts_with("obj-") || !object) {
      return not_here("model.from", from,
                      "a checkpoint (ckpt-...) or an uploaded object (obj-...)");
    }
    inputs.model = &files.emplace(content, std::move(*object));
    return {};
  }
};

}  // namespace

Status check_inputs(const JobStore& store, const Content& content, proto::JobSpec& spec,
                    AdmittedModel& admitted) {
  ModelInputs inputs;
  StoredModel model;
  std::optional<ObjectFiles> tokenizer;
  WEFT_RETURN_IF_ERROR(model.find(store, content, spec.model().from(), inputs));
  if (const std::string& from = spec.tokenizer().from(); !from.empty()) {
    WEFT_RETURN_IF_ERROR(check_object_ref(store, "tokenizer.from", from));
    WEFT_ASSIGN_OR_RETURN(auto object, store.object(from));
    inputs.tokenizer = &tokenizer.emplace(content, std::move(object));
  }
  for (int i = 0; i < spec.tasks_size(); ++i) {
    const std::string field = "tasks[" + std::to_string(i) + "].data.";
    const proto::DataSpec& data = spec.tasks(i).data();
    WEFT_RETURN_IF_ERROR(check_object_ref(store, field + "train", data.train()));
    WEFT_RETURN_IF_ERROR(check_object_ref(store, field + "validation", data.validation()));
  }
  return check_model(spec, inputs, &admitted);
}

Result<AdmittedModel> find_model_of(const JobStore& store, const Content& content,
                                    proto::JobSpec& spec, const proto::ModelSpec& described) {
  AdmittedModel admitted;
  ModelInputs inputs;
  StoredModel model;
  if (described.has_config()) {
    proto::JobSpec job = spec;
    *job.mutable_model() = described;
    const Status status = check_model(job, inputs, &admitted);
    if (!status.ok()) return fail(status);
    *spec.mutable_training() = job.training();
    *spec.mutable_resources() = job.resources();
    return admitted;
  }
  WEFT_RETURN_IF_ERROR(model.find(store, content, spec.model().from(), inputs));
  WEFT_RETURN_IF_ERROR(check_model(spec, inputs, &admitted));
  return admitted;
}

}  // namespace weft
