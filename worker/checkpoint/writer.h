// Writes a checkpoint beside the training: begin() copies this rank's tiles to host memory, threads
// of the writer hash and store them as chunks, and commit() lets rank 0 send the manifest once
// every rank's chunks are durable.
//
// Thread safety: the rank's compute thread; the writer's own threads only touch the snapshot and
// Progress. Ownership: owns the snapshot; Rank and Progress outlive it.
// Invariants: 1. one checkpoint at a time. 2. every tile is written by exactly one rank, or in
// pieces by those that share it out: replicas share the parameters among them, what is frozen
// (ParameterInfo::trained) in equal parts. 3. the manifest is sent after every chunk is durable,
// never before. 4. the snapshot's memory stays for the next checkpoint, so that the training stands
// still for a copy only, unless something in it was frozen: checkpoints that follow refer to that,
// and take less. 5. a full disk makes the writer wait and try again; the training goes on
// meanwhile.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cpu/singles.h"
#include "worker/checkpoint/layout.h"
#include "worker/parallel/rank.h"
#include "worker/progress.h"

namespace weft::checkpoint {

// One named tensor of a rank's state: a parameter or one of its moments.
struct StateTensor {
  const ParameterInfo* info = nullptr;
  proto::TensorRole role = proto::TENSOR_ROLE_WEIGHT;
  Singles value;  // the local shard
  // Where the replicas share the shard out: which of its elements (row-major) `value` holds. Pieces
  // of higher replicas follow those of lower ones.
  std::optional<Part> own = std::nullopt;
};

// A chunk of a file beside the tensors, to which the manifest refers already.
struct FileChunk {
  std::string hash, bytes;
};

class Writer {
 public:
  Writer(Rank& rank, Progress& progress);
  ~Writer();  // gives up what is not committed
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  // Takes the snapshot and returns; `manifest` holds everything but the tensors of `state`, and
  // entries of those that are stored already. The same call on every rank. `files`, which stay as
  // they are until commit(), are stored too. Requires idle().
  void begin(proto::CheckpointManifest manifest, std::span<const StateTensor> state,
             std::span<const FileChunk> files = {});

  bool idle() const { return !active_; }
  // True once this rank's chunks are durable (or have failed).
  bool written() const { return active_ && unfinished_.load() == 0; }
  // Some chunk was refused, and is tried again.
  bool stalled() const { return active_ && told_; }
  // Of the snapshot: what this rank takes beside the training.
  int64_t snapshot_bytes() const { return int64_t{sizeof(float)} * room_; }
  // Waits for written().
  void wait();

  // A collective over the world: gathers the tiles, and rank 0 sends the manifest. Throws
  // StatusError with the first rank's failure. Requires written() on every rank. Returns on rank 0
  // the entries of the tensors that begin() was given, nothing elsewhere.
  std::vector<proto::TensorEntry> commit();

 private:
  struct Piece;  // one chunk-sized part of a tile
  // Adds this rank's tiles of a tensor, whose elements begin at `start` in the snapshot, and their
  // pieces; returns how many elements they are.
  int64_t describe(const StateTensor& tensor, int64_t start);
  // Copies these elements to the snapshot; returns their end.
  float* copy(const StateTensor& tensor, float* to);
  void make_room(int64_t floats);  // of the snapshot; throws StatusError
  void free_room();
  void run(int thread);
  Status put(const Piece& piece);
  Status put(const std::string& hash, std::string_view bytes);
  void join();

  Rank& rank_;
  Progress& progress_;
  proto::CheckpointManifest manifest_;
  std::vector<proto::TensorEntry> entries_;
  std::unique_ptr<float[]> snapshot_;
  int64_t room_ = 0;         // floats of the snapshot
  bool needs_less_ = false;  // the next one, as this one holds what is frozen
  std::vector<Piece> pieces_;
  std::span<const FileChunk> files_;
  std::vector<std::thread> threads_;
  std::atomic<size_t> next_{0};
  std::atomic<size_t> unfinished_{0};
  std::atomic<int64_t> refused_{0};  // bytes of a chunk for which a thread was refused memory
  std::atomic<bool> stop_{false};
  std::atomic<bool> told_{false};
  std::mutex mutex_;  // guards failure_
  Status failure_;
  bool active_ = false;
};

// Every rank's bytes on every rank, in rank order. A collective.
std::vector<std::string> gather_bytes(Context& cx, Communicator& comm, const std::string& bytes);

}  // namespace weft::checkpoint
