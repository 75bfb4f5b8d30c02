#include "worker/checkpoint/reader.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <future>
#include <map>

namespace weft::checkpoint {
namespace {

constexpr size_t kAhead = 4;  // chunks that are on their way at once

// The chunks of a list, in its order; some are fetched ahead.
class Chunks {
 public:
  explicit Chunks(const FetchChunk& fetch) : fetch_(fetch) {}
  void add(const std::string& hash) { hashes_.push_back(hash); }

  Result<std::string> next() {
    while (ahead_.size() < kAhead && !hashes_.empty()) {
      ahead_.push_back(std::async(std::launch::async, fetch_, std::move(hashes_.front())));
      hashes_.pop_front();
    }
    Result<std::string> bytes = ahead_.front().get();
    ahead_.pop_front();
    return bytes;
  }

 private:
  const FetchChunk& fetch_;
  std::deque<std::string> hashes_;
  std::deque<std::future<Result<std::string>>> ahead_;
};

// visit(chunk, run): what of a tile this rank has; runs from a chunk to the target's elements.
void for_each_wanted_run(const proto::Tile& tile, const StateTensor& target,
                         const std::function<void(const proto::ChunkRef&, const Run&)>& visit) {
  const Box box{tile.dim(), {tile.start(), tile.length()}};
  const Part own = target.own.value_or(Part{0, target.value.elements()});
  int64_t first = 0;
  for (const proto::ChunkRef& chunk : tile.chunks()) {
    const int64_t count = chunk.size() / 4;
    for_each_run(target.info->shape, box, target.info->shard, first, count, [&](const Run& run) {
      const int64_t begin = std::max(run.target, own.start);
      const int64_t end = std::min(run.target + run.count, own.start + own.length);
      if (begin >= end) return;
      visit(chunk, {run.source + begin - run.target, begin - own.start, end - begin});
    });
    first += count;
  }
}

struct Loaded {
  const proto::TensorEntry* entry = nullptr;
  const StateTensor* target = nullptr;
};

void add_chunks(const Loaded& loaded, Chunks& chunks) {
  for (const proto::Tile& tile : loaded.entry->tiles()) {
    const proto::ChunkRef* last = nullptr;
    for_each_wanted_run(tile, *loaded.target, [&](const proto::ChunkRef& chunk, const Run&) {
      if (last != &chunk) chunks.add(chunk.hash());
      last = &chunk;
    });
  }
}

Status load_tile(const Loaded& loaded, const proto::Tile& tile, char* local, Chunks& chunks) {
  const std::string tensor = "tensor " + loaded.entry->name() + ": ";
  const proto::ChunkRef* last = nullptr;
  std::string bytes;
  Status failure;
  for_each_wanted_run(tile, *loaded.target, [&](const proto::ChunkRef& chunk, const Run& run) {
    if (!failure.ok()) return;
    if (last != &chunk) {
      Result<std::string> fetched = chunks.next();
      if (!fetched) {
        failure = fetched.error().with_prefix(tensor);
        return;
      }
      bytes = std::move(*fetched);
      if (static_cast<int64_t>(bytes.size()) != chunk.size()) {
        failure =
            Status(Code::kCorruption, tensor + "chunk " + chunk.hash() + " has the wrong size");
        return;
      }
      last = &chunk;
    }
    std::memcpy(local + run.target * 4, bytes.data() + run.source * 4,
                static_cast<size_t>(run.count) * 4);
  });
  return failure;
}

Status load_tensor(const Loaded& loaded, Chunks& chunks) {
  return loaded.target->value.set_on_host([&](float* local) -> Status {
    for (const proto::Tile& tile : loaded.entry->tiles()) {
      WEFT_RETURN_IF_ERROR(load_tile(loaded, tile, reinterpret_cast<char*>(local), chunks));
    }
    return {};
  });
}

Status check_shape(const Loaded& loaded) {
  WEFT_RETURN_IF_ERROR(check_entry(*loaded.entry));
  const Shape shape = shape_of(*loaded.entry);
  if (shape == loaded.target->info->shape) return {};
  return Status::invalid(loaded.entry->name(), shape.to_string(),
                         "the model needs the shape " + loaded.target->info->shape.to_string());
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
  std::vector<Loaded> all;
  Chunks chunks(fetch);
  for (const StateTensor& target : targets) {
    const auto found = entries.find({target.info->name, target.role});
    if (found == entries.end()) {
      missing.push_back(target.info->name);
      continue;
    }
    all.push_back({found->second, &target});
    WEFT_RETURN_IF_ERROR(check_shape(all.back()));
    add_chunks(all.back(), chunks);
  }
  for (const Loaded& loaded : all) WEFT_RETURN_IF_ERROR(load_tensor(loaded, chunks));
  return missing;
}

}  // namespace weft::checkpoint
