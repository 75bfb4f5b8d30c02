#include "worker/admission/input_files.h"

#include <filesystem>
#include <fstream>
#include <map>

namespace weft {
namespace {

namespace fs = std::filesystem;

class LocalFiles final : public InputFiles {
 public:
  Status add(const fs::path& path) {
    std::error_code error;
    const auto bytes = fs::file_size(path, error);
    if (error) return {Code::kUnavailable, path.string() + ": " + error.message()};
    files_[path.filename().string()] = {path.string(), static_cast<int64_t>(bytes)};
    return {};
  }
  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const auto& [name, file] : files_) names.push_back(name);
    return names;
  }
  std::optional<int64_t> size(const std::string& name) const override {
    auto it = files_.find(name);
    return it == files_.end() ? std::nullopt : std::optional(it->second.bytes);
  }
  Result<std::string> read(const std::string& name, int64_t offset, int64_t length) const override {
    const File& file = files_.at(name);
    std::ifstream in(file.path, std::ios::binary);
    std::string bytes(static_cast<size_t>(length), '\0');
    if (!in || !in.seekg(offset) || !in.read(bytes.data(), length)) {
      return fail(Code::kUnavailable, file.path + ": cannot be read");
    }
    return bytes;
  }

 private:
  struct File {
    std::string path;
    int64_t bytes = 0;
  };
  std::map<std::string, File> files_;
};

}  // namespace

Result<std::string> read_whole(const InputFiles& files, const std::string& name, int64_t most) {
  const auto size = files.size(name);
  if (!size) return fail(Code::kNotFound, "has no " + name);
  if (*size > most) {
    return fail(Status::invalid(name, std::to_string(*size) + " bytes",
                                "must have at most " + std::to_string(most)));
  }
  return files.read(name, 0, *size);
}

Result<std::unique_ptr<InputFiles>> open_input_files(const std::string& path) {
  auto files = std::make_unique<LocalFiles>();
  std::error_code error;
  if (fs::is_regular_file(path, error)) {
    WEFT_RETURN_IF_ERROR(files->add(path));
    return std::unique_ptr<InputFiles>(std::move(files));
  }
  if (!fs::is_directory(path, error)) {
    return fail(Code::kNotFound, path + ": no such file or folder");
  }
  for (const auto& entry : fs::directory_iterator(path, error)) {
    if (entry.is_regular_file(error)) WEFT_RETURN_IF_ERROR(files->add(entry.path()));
  }
  if (error) return fail(Code::kUnavailable, path + ": " + error.message());
  return std::unique_ptr<InputFiles>(std::move(files));
}

}  // namespace weft
