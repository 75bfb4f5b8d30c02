#include "worker/checkpoint/writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <map>
#include <new>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/update.h"
#include "kernels/tensor/pinning.h"
#include "kernels/tensor/stream.h"
#include "kernels/tensor/transfer.h"
#include "proto/base/activity.h"
#include "proto/base/hash.h"

namespace weft::checkpoint {
namespace {

constexpr int64_t kElementBytes = sizeof(float);
constexpr int64_t kPieceFloats = (int64_t{4} << 20) / kElementBytes;
// Enough that synced writes of small chunks are grouped by the store.
constexpr int kThreads = 4;
constexpr int64_t kCopyGrain = 256 << 10;  // floats

// What is frozen comes alone, without moments, so that turns would go by the order of the model's
// tensors, its matrices all to one replica: every replica has an equal part instead, unless they
// have their shares anyway.
StateTensor shared_out(const Rank& rank, StateTensor tensor) {
  if (tensor.own || tensor.info->trained) return tensor;
  Tensor& numbers = tensor.value.numbers;
  const Part part =
      part_of(numbers.elements(), rank.mesh.size(Axis::kReplica), rank.mesh.index(Axis::kReplica));
  numbers = numbers.view({part.length}, std::array<int64_t, 1>{1}, part.start);
  tensor.own = part;
  return tensor;
}

// Replicas take turns, so that each writes its share, or have their shares anyway.
bool writes(const Rank& rank, size_t index, const StateTensor& tensor) {
  const size_t replicas = static_cast<size_t>(rank.mesh.size(Axis::kReplica));
  const bool turn = index % replicas == static_cast<size_t>(rank.mesh.index(Axis::kReplica));
  if (!turn && !tensor.own) return false;
  if (!tensor.info->shard.whole()) {
    return !boxes_of(tensor.info->shape, tensor.info->shard).empty();
  }
  const size_t copies = static_cast<size_t>(rank.mesh.size(Axis::kTensor));
  return (index / replicas) % copies == static_cast<size_t>(rank.mesh.index(Axis::kTensor));
}

// visit(from, count): runs of the local elements that are this rank's of a box, in the box's order.
void for_each_own_run(const StateTensor& tensor, const Box& box,
                      const std::function<void(int64_t, int64_t)>& visit) {
  const Part own = tensor.own.value_or(Part{0, tensor.value.elements()});
  for_each_local_run(tensor.info->shape, tensor.info->shard, box, [&](const Run& run) {
    const int64_t begin = std::max(run.target, own.start);
    const int64_t end = std::min(run.target + run.count, own.start + own.length);
    if (begin < end) visit(begin - own.start, end - begin);
  });
}

int64_t elements_of(const StateTensor& tensor, const Box& box) {
  int64_t elements = 0;
  for_each_own_run(tensor, box, [&](int64_t, int64_t count) { elements += count; });
  return elements;
}

// Pieces of one tile, in the order of the ranks, become the tile.
void add_tiles(const proto::TensorEntry& from, proto::TensorEntry& to) {
  for (const proto::Tile& tile : from.tiles()) {
    const auto same = std::find_if(
        to.mutable_tiles()->begin(), to.mutable_tiles()->end(), [&](const proto::Tile& other) {
          return other.dim() == tile.dim() && other.start() == tile.start() &&
                 other.length() == tile.length();
        });
    if (same == to.mutable_tiles()->end()) {
      *to.add_tiles() = tile;
    } else {
      same->mutable_chunks()->MergeFrom(tile.chunks());
    }
  }
}

// A rank that lacks memory lacks it again; whatever else failed there may pass.
Status failure_of_rank(size_t rank, const proto::RankFailed& failed) {
  const bool memory = failed.code() == code_name(Code::kResourceExhausted);
  return {memory ? Code::kResourceExhausted : Code::kUnavailable,
          fmt::format("writing the checkpoint on rank {}: {}", rank, failed.message())};
}

}  // namespace

struct Writer::Piece {
  int entry = 0, tile = 0, chunk = 0;
  int64_t start = 0, count = 0;  // floats of the snapshot
};

Writer::Writer(Rank& rank, Progress& progress) : rank_(rank), progress_(progress) {}

Writer::~Writer() {
  stop_ = true;
  join();
}

void Writer::join() {
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Writer::begin(proto::CheckpointManifest manifest, std::span<const StateTensor> state,
                   std::span<const FileChunk> files) {
  WEFT_CHECK(idle(), "a checkpoint is still being written");
  manifest_ = std::move(manifest);
  files_ = files;
  entries_.clear();
  pieces_.clear();
  int64_t total = 0;
  std::vector<StateTensor> mine;
  for (size_t index = 0; index < state.size(); ++index) {
    StateTensor tensor = shared_out(rank_, state[index]);
    if (!writes(rank_, index, tensor)) continue;
    total += describe(tensor, total);
    mine.push_back(std::move(tensor));
  }
  make_room(total);
  float* to = snapshot_.get();
  for (const StateTensor& tensor : mine) to = copy(tensor, to);
  needs_less_ = std::ranges::any_of(mine, [](const auto& each) { return !each.info->trained; });
  next_ = 0;
  const size_t chunks = files_.size() + pieces_.size();
  unfinished_ = chunks;
  told_ = false;
  failure_ = {};
  active_ = true;
  for (int i = 0; i < kThreads && i < static_cast<int>(chunks); ++i) {
    threads_.emplace_back([this, i] { run(i); });
  }
}

void Writer::make_room(int64_t floats) {
  if (floats <= room_) return;
  free_room();
  try {
    snapshot_ = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(floats));
  } catch (const std::bad_alloc&) {
    throw StatusError(
        Status(Code::kResourceExhausted,
               fmt::format("the system refuses {} bytes of memory for the checkpoint's copy",
                           kElementBytes * floats)));
  }
  room_ = floats;
}

void Writer::free_room() {
  snapshot_.reset();
  room_ = 0;
}

int64_t Writer::describe(const StateTensor& tensor, int64_t start) {
  const ParameterInfo& info = *tensor.info;
  proto::TensorEntry entry;
  entry.set_name(info.name);
  entry.set_role(tensor.role);
  entry.set_dtype("F32");
  for (int64_t extent : info.shape.extents()) entry.add_shape(extent);
  int64_t elements = 0;
  for (const Box& box : boxes_of(info.shape, info.shard)) {
    const int64_t total = elements_of(tensor, box);
    if (total == 0) continue;
    proto::Tile* tile = entry.add_tiles();
    tile->set_dim(box.dim);
    tile->set_start(box.part.start);
    tile->set_length(box.part.length);
    for (int64_t first = 0; first < total; first += kPieceFloats) {
      const int64_t count = std::min(kPieceFloats, total - first);
      tile->add_chunks()->set_size(count * 4);
      pieces_.push_back({static_cast<int>(entries_.size()), entry.tiles_size() - 1,
                         tile->chunks_size() - 1, start + elements + first, count});
    }
    elements += total;
  }
  entries_.push_back(std::move(entry));
  return elements;
}

float* Writer::copy(const StateTensor& tensor, float* to) {
  std::vector<std::pair<int64_t, int64_t>> runs;
  for (const Box& box : boxes_of(tensor.info->shape, tensor.info->shard)) {
    for_each_own_run(tensor, box,
                     [&](int64_t from, int64_t count) { runs.emplace_back(from, count); });
  }
  // take(to, from, count): elements of the tensor.
  const auto take_all = [&](const auto& take) {
    for (const auto& [from, count] : runs) {
      rank_.pool->parallel_for(count, kCopyGrain, [&, from = from](int64_t begin, int64_t end) {
        take(to + begin, from + begin, end - begin);
      });
      to += count;
    }
  };
  const Tensor &numbers = tensor.value.numbers, &low = tensor.value.low;
  if (low) {
    on_host<bfloat16>(numbers, [&](const bfloat16* upper) {
      on_host<bfloat16>(low, [&](const bfloat16* lower) {
        take_all([&](float* out, int64_t from, int64_t count) {
          cpu::update().join(upper + from, lower + from, out, count);
        });
      });
    });
    return to;
  }
  if (is_half(numbers.dtype())) {
    const auto widen = [&](const auto* halves) {
      take_all(
          [&](float* out, int64_t from, int64_t count) { cpu::widen(halves + from, out, count); });
    };
    if (numbers.dtype() == DType::kBF16) {
      on_host<bfloat16>(numbers, widen);
    } else {
      on_host<float16>(numbers, widen);
    }
    return to;
  }
  Stream* stream = numbers.allocator().stream();
  if (stream != nullptr && runs.size() == 1) {
    const auto [from, count] = runs.front();
    const float* source = static_cast<const float*>(numbers.raw()) + from;
    stream->download(to, source, static_cast<size_t>(count) * sizeof(float));
    return to + count;
  }
  on_host<float>(numbers, [&](const float* local) {
    take_all([&](float* out, int64_t from, int64_t count) {
      std::memcpy(out, local + from, static_cast<size_t>(count) * sizeof(float));
    });
  });
  return to;
}

void Writer::run(int thread) {
  run_anywhere();
  const auto lane = static_cast<Lane>(static_cast<int>(Lane::kStorage) + thread);
  while (true) {
    const size_t index = next_.fetch_add(1);
    if (index >= files_.size() + pieces_.size()) return;
    const FileChunk* file = index < files_.size() ? &files_[index] : nullptr;
    const Piece* piece = file == nullptr ? &pieces_[index - files_.size()] : nullptr;
    const int64_t bytes =
        file == nullptr ? kElementBytes * piece->count : static_cast<int64_t>(file->bytes.size());
    Status status;
    try {
      const Activity::Recorded recorded(rank_.activity, lane, "chunk", -1, bytes);
      status = file == nullptr ? put(*piece) : put(file->hash, file->bytes);
    } catch (const StatusError& error) {
      status = error.status();
    } catch (const std::bad_alloc&) {
      refused_ = bytes;  // a message would take memory
    }
    if (!status.ok()) {
      const std::lock_guard lock(mutex_);
      if (failure_.ok()) failure_ = std::move(status);
    }
    unfinished_.fetch_sub(1);
    unfinished_.notify_all();
  }
}

Status Writer::put(const Piece& piece) {
  const std::string_view bytes(reinterpret_cast<const char*>(snapshot_.get() + piece.start),
                               static_cast<size_t>(piece.count) * sizeof(float));
  const std::string hash = sha256_hex(bytes);
  entries_[static_cast<size_t>(piece.entry)]
      .mutable_tiles(piece.tile)
      ->mutable_chunks(piece.chunk)
      ->set_hash(hash);
  return put(hash, bytes);
}

Status Writer::put(const std::string& hash, std::string_view bytes) {
  for (int tries = 0;; ++tries) {
    if (stop_) return Status(Code::kCancelled, "the checkpoint was given up");
    Status status = progress_.put_chunk(hash, bytes);
    const bool may_pass =
        status.code() == Code::kResourceExhausted || status.code() == Code::kUnavailable;
    if (status.ok() || !may_pass) return status;
    if (!told_.exchange(true)) {
      proto::RankEnvelope message;
      proto::RankEvent* event = message.mutable_event();
      event->set_type("checkpoint_waits");
      event->set_level("warn");
      event->set_step(manifest_.state().step());
      event->set_message("the checkpoint cannot be stored yet and is tried again: " +
                         status.to_string());
      (void)progress_.send(std::move(message));
    }
    const int wait_ms = std::min(200 << std::min(tries, 4), 2000);
    for (int waited = 0; waited < wait_ms && !stop_; waited += 50) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
}

void Writer::wait() {
  for (size_t left = unfinished_.load(); left != 0; left = unfinished_.load()) {
    unfinished_.wait(left);
  }
}

std::vector<std::string> gather_bytes(Context& cx, Communicator& comm, const std::string& bytes) {
  const size_t ranks = static_cast<size_t>(comm.size());
  const int64_t mine = static_cast<int64_t>(bytes.size());
  const Tensor size = Tensor::from<int64_t>(cx.allocator, {1}, std::span(&mine, 1));
  Tensor sizes = Tensor::empty(cx.allocator, {comm.size()}, DType::kI64);
  comm.all_gather(size, sizes, std::vector<int64_t>(ranks, 1));
  const std::vector<int64_t> counts = sizes.to_vector<int64_t>();
  int64_t total = 0;
  for (int64_t count : counts) total += count;
  const Tensor in = Tensor::from<uint8_t>(
      cx.allocator, {mine}, {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  Tensor out = Tensor::empty(cx.allocator, {total}, DType::kU8);
  comm.all_gather(in, out, counts);
  std::vector<std::string> parts;
  on_host<uint8_t>(out, [&](const uint8_t* at) {
    for (int64_t count : counts) {
      parts.emplace_back(reinterpret_cast<const char*>(at), static_cast<size_t>(count));
      at += count;
    }
  });
  return parts;
}

std::vector<proto::TensorEntry> Writer::commit() {
  WEFT_CHECK(written(), "the checkpoint is not written yet");
  join();
  active_ = false;
  if (needs_less_) free_room();
  proto::RankEnvelope mine;  // its tiles, or why there are none
  {
    const std::lock_guard lock(mutex_);
    if (const int64_t bytes = refused_.exchange(0); bytes > 0) {
      free_room();  // for what follows
      failure_ = {Code::kResourceExhausted,
                  fmt::format("storing {} bytes: the system refuses it more memory", bytes)};
    }
    if (!failure_.ok()) {
      mine.mutable_failed()->set_code(std::string(code_name(failure_.code())));
      mine.mutable_failed()->set_message(failure_.to_string());
    }
  }
  if (!mine.has_failed()) {
    proto::CheckpointManifest& tiles = *mine.mutable_checkpoint()->mutable_manifest();
    for (proto::TensorEntry& entry : entries_) tiles.add_tensors()->Swap(&entry);
  }
  entries_.clear();
  pieces_.clear();
  Context cx = rank_.context();
  const auto parts = gather_bytes(cx, rank_.mesh.axis(Axis::kWorld), mine.SerializeAsString());
  std::map<std::pair<std::string, int>, proto::TensorEntry> merged;
  for (size_t rank = 0; rank < parts.size(); ++rank) {
    proto::RankEnvelope other;
    if (!other.ParseFromString(parts[rank])) {
      throw StatusError(Status(Code::kInternal, "another rank's tiles could not be read"));
    }
    if (other.has_failed()) throw StatusError(failure_of_rank(rank, other.failed()));
    for (proto::TensorEntry& entry :
         *other.mutable_checkpoint()->mutable_manifest()->mutable_tensors()) {
      auto [it, added] = merged.try_emplace({entry.name(), entry.role()}, entry);
      if (!added) add_tiles(entry, it->second);
    }
  }
  std::vector<proto::TensorEntry> stored;
  if (rank_.mesh.index(Axis::kWorld) != 0) return stored;
  for (auto& [key, entry] : merged) {
    if (Status status = check_entry(entry); !status.ok()) throw StatusError(status);
    *manifest_.add_tensors() = entry;
    stored.push_back(std::move(entry));
  }
  int64_t bytes = 0;
  for (const proto::TensorEntry& entry : manifest_.tensors()) {
    for (const proto::Tile& tile : entry.tiles()) {
      for (const proto::ChunkRef& chunk : tile.chunks()) bytes += chunk.size();
    }
  }
  manifest_.set_bytes(bytes);
  proto::RankEnvelope message;
  message.mutable_checkpoint()->set_why(manifest_.why());
  message.mutable_checkpoint()->mutable_manifest()->Swap(&manifest_);
  if (Status status = progress_.send(std::move(message)); !status.ok()) throw StatusError(status);
  return stored;
}

}  // namespace weft::checkpoint
