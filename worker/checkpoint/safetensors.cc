#include "worker/checkpoint/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

#include "worker/checkpoint/safetensors_convert.h"
#include "worker/checkpoint/safetensors_header.h"

namespace weft {

using checkpoint::convert_to_float;

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

struct SafetensorsFile::State {
  ~State() {
    if (descriptor >= 0) ::close(descriptor);
  }
  Status read_at(int64_t offset, std::span<char> out) const {
    size_t done = 0;
    while (done < out.size()) {
      const ssize_t got = ::pread(descriptor, out.data() + done, out.size() - done,
                                  static_cast<off_t>(offset) + static_cast<off_t>(done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return Status(Code::kUnavailable, path + ": " + std::strerror(errno));
      if (got == 0) return Status(Code::kCorruption, path + ": the file became shorter");
      done += static_cast<size_t>(got);
    }
    return {};
  }
  Status error(const std::string& tensor, const std::string& value, const std::string& rule) const {
    return Status::invalid("\"" + tensor + "\"", value, rule).with_prefix(path + ": ");
  }
  // `count` elements from element `first` of a tensor.
  Status read_run(const SafetensorInfo& info, int64_t first, std::span<float> out) const {
    const int64_t size = checkpoint::safetensors_dtype_bytes(info.dtype);
    const int64_t base = data_start + info.begin;
    if (info.dtype == "F32") {
      return read_at(base + first * size,
                     std::span(reinterpret_cast<char*>(out.data()), out.size_bytes()));
    }
    std::vector<char> buffer(std::min<size_t>(out.size(), 1 << 16) * static_cast<size_t>(size));
    for (size_t done = 0; done < out.size();) {
      const size_t count = std::min<size_t>(out.size() - done, 1 << 16);
      const std::span<char> bytes(buffer.data(), count * static_cast<size_t>(size));
      WEFT_RETURN_IF_ERROR(read_at(base + (first + static_cast<int64_t>(done)) * size, bytes));
      convert_to_float(info.dtype, bytes, out.subspan(done, count));
      done += count;
    }
    return {};
  }

  std::string path;
  int descriptor = -1;
  int64_t data_start = 0;
  checkpoint::SafetensorsHeader header;
};

int64_t SafetensorInfo::elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

SafetensorsFile::SafetensorsFile(std::unique_ptr<State> state) : state_(std::move(state)) {}
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;
SafetensorsFile::~SafetensorsFile() = default;

Result<int64_t> checkpoint::safetensors_header_bytes(std::string_view first, int64_t file_bytes) {
  if (file_bytes < 8 || first.size() < 8) {
    return fail(Code::kInvalidArgument,
                "is shorter than the 8 bytes a safetensors file starts with");
  }
  uint64_t length = 0;
  std::memcpy(&length, first.data(), sizeof length);
  const auto most = static_cast<uint64_t>(std::min(kSafetensorsHeaderBytesMax, file_bytes - 8));
  if (length <= most) return static_cast<int64_t>(length);
  return fail(Status::invalid("header length", std::to_string(length),
                              "must be at most " + std::to_string(most)));
}

Result<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  auto state = std::make_unique<State>();
  state->path = path;
  state->descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (state->descriptor < 0) {
    return fail(errno == ENOENT ? Code::kNotFound : Code::kUnavailable,
                path + ": " + std::strerror(errno));
  }
  struct stat status = {};
  if (::fstat(state->descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    return fail(Code::kInvalidArgument, path + ": is not a regular file");
  }
  const int64_t file_bytes = status.st_size;
  std::array<char, 8> prefix = {};
  if (file_bytes >= 8) WEFT_RETURN_IF_ERROR(state->read_at(0, prefix));
  const auto length =
      checkpoint::safetensors_header_bytes({prefix.data(), prefix.size()}, file_bytes);
  if (!length) return fail(length.error().with_prefix(path + ": "));
  std::string text(static_cast<size_t>(*length), '\0');
  WEFT_RETURN_IF_ERROR(state->read_at(8, text));
  state->data_start = 8 + *length;
  auto header = checkpoint::parse_safetensors_header(text, file_bytes - state->data_start);
  if (!header) return fail(header.error().with_prefix(path + ": "));
  state->header = std::move(*header);
  return SafetensorsFile(std::move(state));
}

const std::string& SafetensorsFile::path() const { return state_->path; }
const std::map<std::string, SafetensorInfo>& SafetensorsFile::tensors() const {
  return state_->header.tensors;
}
const std::map<std::string, std::string>& SafetensorsFile::metadata() const {
  return state_->header.metadata;
}
const SafetensorInfo* SafetensorsFile::find(const std::string& name) const {
  const auto found = state_->header.tensors.find(name);
  return found == state_->header.tensors.end() ? nullptr : &found->second;
}

Status SafetensorsFile::read(const std::string& name, int dim, int64_t start, int64_t length,
                             std::span<float> out) const {
  const SafetensorInfo* info = find(name);
  if (info == nullptr) {
    return Status(Code::kNotFound, state_->path + ": has no tensor \"" + name + "\"");
  }
  if (!checkpoint::convertible(info->dtype)) {
    return state_->error(name, info->dtype, "must be F32, F64, F16, BF16 or I64 to be read as F32");
  }
  int64_t outer = 1, inner = 1, whole = 1;
  if (dim < 0) {
    inner = info->elements();
    start = 0;
    length = 1;
  } else {
    if (dim >= static_cast<int>(info->shape.size())) {
      return state_->error(name, "dim " + std::to_string(dim), "the tensor has no such dim");
    }
    const auto at = static_cast<size_t>(dim);
    whole = info->shape[at];
    for (size_t d = 0; d < info->shape.size(); ++d) {
      if (d < at) outer *= info->shape[d];
      if (d > at) inner *= info->shape[d];
    }
    if (start < 0 || length < 0 || start > whole || length > whole - start) {
      return state_->error(name, std::to_string(start) + " + " + std::to_string(length),
                           "must lie in [0, " + std::to_string(whole) + "]");
    }
  }
  const int64_t run = length * inner;
  if (static_cast<int64_t>(out.size()) != outer * run) {
    return state_->error(name, std::to_string(out.size()) + " elements of room",
                         "must be " + std::to_string(outer * run));
  }
  if (length == whole) return state_->read_run(*info, 0, out);
  for (int64_t row = 0; run > 0 && row < outer; ++row) {
    WEFT_RETURN_IF_ERROR(
        state_->read_run(*info, (row * whole + start) * inner,
                         out.subspan(static_cast<size_t>(row * run), static_cast<size_t>(run))));
  }
  return {};
}

Status SafetensorsFile::read(const std::string& name, std::span<float> out) const {
  return read(name, -1, 0, 0, out);
}

Status SafetensorsFile::read_integers(const std::string& name, std::span<int64_t> out) const {
  const SafetensorInfo* info = find(name);
  if (info == nullptr) {
    return Status(Code::kNotFound, state_->path + ": has no tensor \"" + name + "\"");
  }
  if (info->dtype != "I64" && info->dtype != "I32") {
    return state_->error(name, info->dtype, "must be I64 or I32");
  }
  if (static_cast<int64_t>(out.size()) != info->elements()) {
    return state_->error(name, std::to_string(out.size()) + " elements of room",
                         "must be " + std::to_string(info->elements()));
  }
  const int64_t base = state_->data_start + info->begin;
  if (info->dtype == "I64") {
    return state_->read_at(base, std::span(reinterpret_cast<char*>(out.data()), out.size_bytes()));
  }
  std::vector<int32_t> narrow(out.size());
  const std::span<int32_t> room(narrow);
  WEFT_RETURN_IF_ERROR(
      state_->read_at(base, std::span(reinterpret_cast<char*>(room.data()), room.size_bytes())));
  std::copy(narrow.begin(), narrow.end(), out.begin());
  return {};
}

}  // namespace weft
