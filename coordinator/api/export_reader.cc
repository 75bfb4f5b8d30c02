#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "coordinator/api/export.h"

namespace weft::api {
namespace {
constexpr size_t kPieceBytes = size_t{1} << 20;
}  // namespace

int64_t ChunkCursor::left() const {
  int64_t bytes = static_cast<int64_t>(bytes_.size() - used_);
  for (size_t i = next_; i < chunks_.size(); ++i) bytes += chunks_[i].size();
  return bytes;
}

Status ChunkCursor::append(int64_t n, std::string& out) {
  while (n > 0) {
    if (used_ == bytes_.size()) {
      if (next_ == chunks_.size()) return Status(Code::kCorruption, "chunks end before their tile");
      const proto::ChunkRef& chunk = chunks_[next_++];
      WEFT_ASSIGN_OR_RETURN(bytes_, source_(chunk.hash()));
      used_ = 0;
      if (static_cast<int64_t>(bytes_.size()) != chunk.size()) {
        return Status(Code::kCorruption, fmt::format("chunk {} has {} bytes instead of {}",
                                                     chunk.hash(), bytes_.size(), chunk.size()));
      }
    }
    const size_t take = std::min(static_cast<size_t>(n), bytes_.size() - used_);
    out.append(bytes_, used_, take);
    used_ += take;
    n -= static_cast<int64_t>(take);
  }
  return Status();
}

Status ExportReader::read_pieces(const proto::TensorEntry& tensor,
                                 const std::function<void(std::span<const float>)>& take) const {
  ExportedFile file;
  file.tensors.push_back({tensor, {}});
  ExportReader reader(std::move(file), source_);
  std::vector<float> values;
  for (bool more = true; more;) {
    std::string bytes;
    WEFT_ASSIGN_OR_RETURN(more, reader.read(bytes));
    values.resize(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    take(values);
  }
  return {};
}

Result<std::vector<float>> ExportReader::read_whole(const proto::TensorEntry& tensor) const {
  std::vector<float> all;
  WEFT_RETURN_IF_ERROR(read_pieces(tensor, [&](std::span<const float> piece) {
    all.insert(all.end(), piece.begin(), piece.end());
  }));
  return all;
}

Status ExportReader::open_adapter(const ExportedTensor& exported) {
  WEFT_ASSIGN_OR_RETURN(const std::vector<float> a, read_whole(exported.adapter[0]));
  WEFT_ASSIGN_OR_RETURN(const std::vector<float> b, read_whole(exported.adapter[1]));
  merged_.emplace(file_.adapter, file_.layout, a, b);
  if (!file_.adapter.dora) return {};
  WEFT_ASSIGN_OR_RETURN(const std::vector<float> magnitude, read_whole(exported.adapter[2]));
  int64_t first = 0;
  WEFT_RETURN_IF_ERROR(read_pieces(exported.entry, [&](std::span<const float> piece) {
    merged_->measure(first, piece);
    first += std::ssize(piece);
  }));
  merged_->rescale(magnitude);
  return {};
}

Status ExportReader::open_tensor(const ExportedTensor& exported) {
  merged_.reset();
  elements_ = 0;
  if (!exported.adapter.empty()) WEFT_RETURN_IF_ERROR(open_adapter(exported));
  const proto::TensorEntry& tensor = exported.entry;
  tiles_.clear();
  run_bytes_.clear();
  const int dim = std::max(tensor.tiles(0).dim(), 0);
  int64_t inner = 4;
  outer_left_ = 1;
  for (int i = 0; i < tensor.shape_size(); ++i) {
    if (i < dim) outer_left_ *= tensor.shape(i);
    if (i > dim) inner *= tensor.shape(i);
  }
  for (const proto::Tile& tile : tensor.tiles()) {
    tiles_.emplace_back(std::vector<proto::ChunkRef>(tile.chunks().begin(), tile.chunks().end()),
                        source_);
    run_bytes_.push_back(tile.length() * inner);
  }
  tile_ = 0;
  run_left_ = run_bytes_[0];
  return {};
}

// The text before the tensors is whole floats, and so is what is read at once.
void ExportReader::merge(std::string& out, int64_t bytes) {
  const int64_t count = bytes / int64_t{sizeof(float)};
  if (merged_) {
    std::vector<float> values(static_cast<size_t>(count));
    char* const at = out.data() + out.size() - bytes;
    std::memcpy(values.data(), at, static_cast<size_t>(bytes));
    merged_->merge_into(elements_, values);
    std::memcpy(at, values.data(), static_cast<size_t>(bytes));
  }
  elements_ += count;
}

Result<bool> ExportReader::read(std::string& out) {
  const size_t goal = out.size() + kPieceBytes;
  if (!started_) {
    out += file_.text;
    started_ = true;
    if (!file_.chunks.empty()) {
      tiles_.emplace_back(file_.chunks, source_);
      run_bytes_.push_back(file_.bytes);
      outer_left_ = 1;
      run_left_ = file_.bytes;
    }
  }
  while (out.size() < goal) {
    if (outer_left_ == 0) {
      if (next_tensor_ == file_.tensors.size()) return false;
      WEFT_RETURN_IF_ERROR(open_tensor(file_.tensors[next_tensor_++]));
      continue;
    }
    const int64_t take = std::min(run_left_, static_cast<int64_t>(goal - out.size()));
    WEFT_RETURN_IF_ERROR(tiles_[tile_].append(take, out));
    if (!file_.tensors.empty()) merge(out, take);
    run_left_ -= take;
    if (run_left_ > 0) continue;
    tile_ = (tile_ + 1) % tiles_.size();
    if (tile_ == 0) --outer_left_;
    run_left_ = run_bytes_[tile_];
  }
  return true;
}

}  // namespace weft::api
