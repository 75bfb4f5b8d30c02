// Chunks and what refers to them: uploads, commits of manifests, and the collection of chunks that
// nothing refers to any more.
//
// Thread safety: every call from any thread. Ownership: refers to both stores and the clock, which
// live longer. Lock order: this object's mutex, then the job store's.
// Invariants: 1. A manifest is committed only while all its chunks are here. 2. A chunk is
// collected only when nothing refers to it and nobody put it, asked for it as missing, or committed
// it within the grace period: an upload has that long to finish.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/chunks/chunk_store.h"
#include "coordinator/store/job_store.h"
#include "proto/base/clock.h"
#include "proto/base/status.h"
#include "proto/checkpoint.pb.h"
#include "proto/object.pb.h"

namespace weft {

// "obj-" and 32 hex digits, from the files list.
std::string object_id(const proto::ObjectManifest& manifest);
// Paths (relative, no "..", no backslash, no control character, no duplicate, no file that is also
// a folder), chunk names and sizes, and that each file's size is the sum of its chunks.
Status check_object(const proto::ObjectManifest& manifest);
std::vector<std::string> chunks_of(const proto::ObjectManifest& manifest);
std::vector<std::string> chunks_of(const proto::CheckpointManifest& manifest);

class Content {
 public:
  Content(ChunkStore& chunks, JobStore& store, const Clock& clock)
      : chunks_(chunks), store_(store), clock_(clock) {}

  Status put_chunk(const std::string& hash, std::string_view bytes);
  Result<std::string> get_chunk(const std::string& hash) const;
  // Those that are not here, in order, each once.
  Result<std::vector<std::string>> missing(const std::vector<std::string>& hashes);
  // Refuses what check_object refuses, and chunks that are missing or of another size than
  // declared.
  Result<proto::ObjectManifest> put_object(proto::ObjectManifest manifest);
  // Runs `commit` while none of these chunks can go; kFailedPrecondition names the first that is
  // not here.
  Status with_chunks(const std::vector<std::string>& hashes, const std::function<Status()>& commit);
  // Removes what is unreferenced for longer than `grace`; returns how many chunks went. Call it now
  // and then: a chunk's time runs from the first call that finds it unreferenced.
  Result<int64_t> collect(Clock::Duration grace);
  int64_t bytes() const { return chunks_.bytes(); }
  bool full() const { return chunks_.full(); }  // as ChunkStore's
  Status room() { return chunks_.room(); }

 private:
  // Under mutex_: that the chunks of a file are here, as large as it says; they stay for a while.
  Status hold_chunks(const std::string& field, const proto::ObjectFile& file);
  // Of the loose chunks those that may go.
  std::vector<std::string> unused(std::map<std::string, Clock::Duration> loose,
                                  Clock::Duration grace);
  // But for those that were touched meanwhile; returns how many went.
  Result<int64_t> remove(const std::vector<std::string>& old);
  void touch(const std::string& hash) { touched_[hash] = clock_.monotonic(); }

  ChunkStore& chunks_;
  JobStore& store_;
  const Clock& clock_;

  std::mutex mutex_;  // guards the next members and orders commits and collections
  std::map<std::string, Clock::Duration> touched_;       // put, asked for or committed
  std::map<std::string, Clock::Duration> unreferenced_;  // since when
};

}  // namespace weft
