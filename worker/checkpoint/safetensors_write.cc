#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "proto/json/utf8.h"
#include "worker/checkpoint/safetensors.h"

namespace weft {
namespace {

// The file under its temporary name; removed again unless committed.
class PartFile {
 public:
  explicit PartFile(const std::string& path) : path_(path), part_(path + ".part") {
    descriptor_ = ::open(part_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  }
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;
  ~PartFile() {
    if (descriptor_ >= 0) {
      ::close(descriptor_);
      ::unlink(part_.c_str());
    }
  }
  bool is_open() const { return descriptor_ >= 0; }
  Status error() const {
    const bool full = errno == ENOSPC || errno == EDQUOT;
    return Status(full ? Code::kResourceExhausted : Code::kUnavailable,
                  path_ + ": cannot be written: " + std::strerror(errno) +
                      (full ? "; make room and export again" : ""));
  }
  Status write(const void* bytes, size_t count) {
    const char* at = static_cast<const char*>(bytes);
    while (count > 0) {
      const ssize_t done = ::write(descriptor_, at, count);
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) return error();
      at += done;
      count -= static_cast<size_t>(done);
    }
    return {};
  }
  Status commit() {
    if (::fsync(descriptor_) != 0) return error();
    if (::rename(part_.c_str(), path_.c_str()) != 0) return error();
    ::close(descriptor_);
    descriptor_ = -1;
    const std::string folder = std::filesystem::path(path_).parent_path().string();
    const int at = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_CLOEXEC);
    if (at >= 0) {
      ::fsync(at);
      ::close(at);
    }
    return {};
  }

 private:
  const std::string path_, part_;
  int descriptor_ = -1;
};

Result<int64_t> tensor_bytes(const SafetensorSpec& spec) {
  int64_t bytes = sizeof(float);
  for (const int64_t size : spec.shape) {
    if (size < 0 || (size > 0 && bytes > std::numeric_limits<int64_t>::max() / size)) {
      return fail(Status::invalid("\"" + spec.name + "\".shape", std::to_string(size),
                                  "must be at least 0, all bytes within 63 bits"));
    }
    bytes *= size;
  }
  return bytes;
}

// Header of tensors sorted by name, padded with spaces to a multiple of 8 bytes.
Result<std::string> header_text(const std::vector<SafetensorSpec>& tensors) {
  std::string text = R"({"__metadata__":{"format":"pt"})";
  int64_t offset = 0;
  const SafetensorSpec* last = nullptr;
  for (const SafetensorSpec& spec : tensors) {
    if (spec.name.empty() || spec.name == "__metadata__" ||
        utf8_first_invalid(spec.name) != std::string_view::npos) {
      return fail(Status::invalid("tensor", spec.name, "must have a name in UTF-8"));
    }
    if (last != nullptr && last->name == spec.name) {
      return fail(Status::invalid("\"" + spec.name + "\"", "", "two tensors have this name"));
    }
    last = &spec;
    WEFT_ASSIGN_OR_RETURN(const int64_t bytes, tensor_bytes(spec));
    const nlohmann::json name = spec.name, shape = spec.shape;
    text += "," + name.dump() + R"(:{"dtype":"F32","shape":)" + shape.dump() +
            R"(,"data_offsets":[)" + std::to_string(offset) + "," + std::to_string(offset + bytes) +
            "]}";
    offset += bytes;
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

Status write_safetensors(const std::string& path, std::vector<SafetensorSpec> tensors,
                         const TensorProducer& produce) {
  std::sort(tensors.begin(), tensors.end(),
            [](const SafetensorSpec& a, const SafetensorSpec& b) { return a.name < b.name; });
  WEFT_ASSIGN_OR_RETURN(const std::string header, header_text(tensors));
  PartFile file(path);
  if (!file.is_open()) return file.error();
  const auto length = static_cast<uint64_t>(header.size());
  WEFT_RETURN_IF_ERROR(file.write(&length, sizeof(length)));
  WEFT_RETURN_IF_ERROR(file.write(header.data(), header.size()));
  for (const SafetensorSpec& spec : tensors) {
    WEFT_ASSIGN_OR_RETURN(int64_t left, tensor_bytes(spec));
    const auto mismatch = [&](const std::string& rule) {
      return Status(Code::kInternal, path + ": \"" + spec.name + "\": " + rule);
    };
    WEFT_RETURN_IF_ERROR(produce(spec, [&](std::span<const float> values) -> Status {
      if (static_cast<int64_t>(values.size_bytes()) > left) {
        return mismatch("more elements than its shape has");
      }
      left -= static_cast<int64_t>(values.size_bytes());
      return file.write(values.data(), values.size_bytes());
    }));
    if (left != 0) return mismatch("fewer elements than its shape has");
  }
  return file.commit();
}

}  // namespace weft
