#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "proto/json/parse.h"
#include "worker/checkpoint/safetensors_header.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kIndexName = checkpoint::kSafetensorsIndexName;

Result<std::map<std::string, std::string>> read_index(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  if (!stream) return fail(Code::kUnavailable, path + ": cannot be read");
  return checkpoint::parse_safetensors_index(text.view(), path);
}

}  // namespace

Result<std::map<std::string, std::string>> checkpoint::parse_safetensors_index(
    std::string_view text, const std::string& path) {
  auto parsed = parse_strict(text);
  if (!parsed) return fail(parsed.error().with_prefix(path + ": "));
  const auto wrong = [&](const std::string& field, const std::string& value,
                         const std::string& rule) {
    return fail(Status::invalid(field, value, rule).with_prefix(path + ": "));
  };
  if (!parsed->is_object() || !parsed->contains("weight_map")) {
    return wrong("weight_map", "", "is missing");
  }
  const json& entries = parsed->at("weight_map");
  if (!entries.is_object()) return wrong("weight_map", entries.type_name(), "must be an object");
  std::map<std::string, std::string> map;
  for (const auto& [tensor, file] : entries.items()) {
    const std::string field = "weight_map.\"" + tensor + "\"";
    if (!file.is_string()) return wrong(field, file.type_name(), "must be a file name");
    const auto name = file.get<std::string>();
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
        name.find('\0') != std::string::npos) {
      return wrong(field, name, "must be the name of a file in the same folder");
    }
    map[tensor] = name;
  }
  if (map.empty()) return wrong("weight_map", "{}", "must name a tensor");
  return map;
}

Result<std::vector<std::string>> safetensors_files(const std::string& folder) {
  const fs::path index = fs::path(folder) / kIndexName;
  const fs::path single = fs::path(folder) / "model.safetensors";
  std::error_code ignored;
  if (fs::is_regular_file(single, ignored)) return std::vector<std::string>{single.string()};
  if (!fs::is_regular_file(index, ignored)) {
    return fail(Code::kNotFound,
                folder + ": has neither model.safetensors nor " + kIndexName +
                    "; other weights, as pytorch_model.bin, are not read: let transformers write "
                    "them with save_pretrained");
  }
  WEFT_ASSIGN_OR_RETURN(const auto map, read_index(index.string()));
  std::set<std::string> names;
  for (const auto& [tensor, file] : map) names.insert(file);
  std::vector<std::string> files;
  for (const std::string& name : names) files.push_back((fs::path(folder) / name).string());
  return files;
}

Result<SafetensorsSet> SafetensorsSet::open(const std::vector<std::string>& files) {
  SafetensorsSet set;
  for (const std::string& path : files) {
    WEFT_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::open(path));
    for (const auto& [name, info] : file.tensors()) {
      const auto [at, fresh] = set.file_of_.emplace(name, set.files_.size());
      if (!fresh) {
        return fail(Status::invalid("\"" + name + "\"", set.files_[at->second].path(),
                                    "the tensor stands in " + path + " too"));
      }
    }
    set.files_.push_back(std::move(file));
  }
  return set;
}

Result<SafetensorsSet> SafetensorsSet::open_folder(const std::string& folder) {
  WEFT_ASSIGN_OR_RETURN(const auto files, safetensors_files(folder));
  WEFT_ASSIGN_OR_RETURN(SafetensorsSet set, open(files));
  const std::string single = (fs::path(folder) / "model.safetensors").string();
  if (files.size() == 1 && files[0] == single) return set;
  const std::string index = (fs::path(folder) / kIndexName).string();
  WEFT_ASSIGN_OR_RETURN(const auto map, read_index(index));
  const auto disagree = [&](const std::string& tensor, const std::string& rule) {
    return fail(
        Status::invalid("weight_map.\"" + tensor + "\"", "", rule).with_prefix(index + ": "));
  };
  for (const auto& [tensor, name] : map) {
    const auto at = set.file_of_.find(tensor);
    if (at == set.file_of_.end() || fs::path(set.files_[at->second].path()).filename() != name) {
      return disagree(tensor, name + " has no such tensor");
    }
  }
  for (const auto& [tensor, file] : set.file_of_) {
    if (!map.contains(tensor)) {
      return disagree(tensor, "is missing: " + set.files_[file].path() + " has this tensor");
    }
  }
  return set;
}

std::vector<std::string> SafetensorsSet::names() const {
  std::vector<std::string> names;
  for (const auto& [name, file] : file_of_) names.push_back(name);
  return names;
}

const SafetensorInfo* SafetensorsSet::find(const std::string& name) const {
  const auto at = file_of_.find(name);
  return at == file_of_.end() ? nullptr : files_[at->second].find(name);
}

Status SafetensorsSet::read(const std::string& name, int dim, int64_t start, int64_t length,
                            std::span<float> out) const {
  const auto at = file_of_.find(name);
  if (at == file_of_.end()) {
    return Status(Code::kNotFound, "the checkpoint has no tensor \"" + name + "\"");
  }
  return files_[at->second].read(name, dim, start, length, out);
}

}  // namespace weft
