#include "worker/checkpoint/reader.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "kernels/tensor/transfer.h"

namespace weft::checkpoint {
namespace {

Status load_tile(const proto::TensorEntry& entry, const proto::Tile& tile,
                 const StateTensor& target, char* local, const FetchChunk& fetch) {
  const Shape& shape = target.info->shape;
  const Box box{tile.dim(), {tile.start(), tile.length()}};
  const Part own = target.own.value_or(Part{0, target.value.elements()});
  int64_t first = 0;
  for (const proto::ChunkRef& chunk : tile.chunks()) {
    const int64_t count = chunk.size() / 4;
    std::string bytes;
    Status failure;
    for_each_run(shape, box, target.info->shard, first, count, [&](const Run& run) {
      const int64_t begin = std::max(run.target, own.start);
      const int64_t end = std::min(run.target + run.count, own.start + own.length);
      if (!failure.ok() || begin >= end) return;
      if (bytes.empty()) {
        Result<std::string> fetched = fetch(chunk.hash());
        if (!fetched) {
          failure = fetched.error().with_prefix("tensor " + entry.name() + ": ");
          return;
        }
        bytes = std::move(*fetched);
        if (static_cast<int64_t>(bytes.size()) != chunk.size()) {
          failure = Status(Code::kCorruption, "tensor " + entry.name() + ": chunk " + chunk.hash() +
                                                  " has the wrong size");
          return;
        }
      }
      std::memcpy(local + (begin - own.start) * 4,
                  bytes.data() + (run.source + begin - run.target) * 4,
                  static_cast<size_t>(end - begin) * 4);
    });
    WEFT_RETURN_IF_ERROR(failure);
    first += count;
  }
  return {};
}

Status load_tiles(const proto::TensorEntry& entry, const StateTensor& target, char* local,
                  const FetchChunk& fetch) {
  for (const proto::Tile& tile : entry.tiles()) {
    WEFT_RETURN_IF_ERROR(load_tile(entry, tile, target, local, fetch));
  }
  return {};
}

}  // namespace

Result<std::vector<std::string>> load(const proto::CheckpointManifest& manifest,
                                      std::span<const StateTensor> targets,
                                      const FetchChunk& fetch) {
  std::map<std::pair<std::string, int>, const proto::TensorEntry*> entries;
  for (const proto::TensorEntry& entry : manifest.tensors()) {
    entries[{entry.name(), entry.role()}] = &entry;
  }
  std::vector<std::string> missing;
  for (const StateTensor& target : targets) {
    const auto found = entries.find({target.info->name, target.role});
    if (found == entries.end()) {
      missing.push_back(target.info->name);
      continue;
    }
    const proto::TensorEntry& entry = *found->second;
    WEFT_RETURN_IF_ERROR(check_entry(entry));
    const Shape shape = shape_of(entry);
    if (!(shape == target.info->shape)) {
      return fail(Status::invalid(entry.name(), shape.to_string(),
                                  "the model needs the shape " + target.info->shape.to_string()));
    }
    const Status loaded = change_on_host<float>(target.value, [&](float* local) {
      return load_tiles(entry, target, reinterpret_cast<char*>(local), fetch);
    });
    if (!loaded.ok()) return fail(loaded);
  }
  return missing;
}

}  // namespace weft::checkpoint
