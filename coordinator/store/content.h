// Chunks and what refers to them: uploads, commits of manifests, and the collection of chunks that
// nothing refers to any more.
//
// Thread safety: every call from any thread. Ownership: refers to both stores and the clock, which
// live longer. Lock order: this object's mutex, then the job store's.
// Invariants:
// 1. A manifest is committed only while all its chunks are here.
// 2. A chunk is collected only when no manifest refers to it and nobody relies on it:
//    - an attempt that put it, from before the store has it until a manifest of that attempt refers
//      to it or the attempt is over, however long that takes. Each collection asks the job store
//      which attempts are over, so nothing has to be told here in whichever way one ends, and what
//      a dead one still sends stays until the next collection only;
//    - who uploads: whoever put it for no attempt, or asked for it as missing, has the grace
//    period;
//    - a reader of a checkpoint, while it has the manifest and at least kReadAgain afterwards.
//    Nothing else is held, so a checkpoint that is removed leaves with the next collection.
// 3. What a manifest of an attempt refers to needs no hold though the attempt may have put it for
//    its next one too: an unfinished job's newest checkpoint is removed only as a newer one comes.
// 4. No collection removes what came, was committed or was opened while it looked: it removes only
//    under mutex_, what is not held then and was not touched since it began (spared_). Whoever puts
//    a chunk holds it before looking whether it is here.
// 5. Holds are in memory. The first collection of a process removes nothing: what is unreferenced
//    then counts as put just now by an upload, and by each attempt that lives on, until that one
//    commits a chunk that it stored since. Its parts of earlier checkpoints are then committed too,
//    as its commits come in order and it writes one checkpoint at a time.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
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
  using Attempt = std::pair<std::string, int32_t>;  // job and number
  using ManifestPointer = std::shared_ptr<const proto::CheckpointManifest>;
  // Between one file of an export and the next.
  static constexpr Clock::Duration kReadAgain = std::chrono::seconds(60);

  Content(ChunkStore& chunks, JobStore& store, const Clock& clock)
      : chunks_(chunks), store_(store), clock_(clock) {}

  Status put_chunk(const std::string& hash, std::string_view bytes);  // of an upload
  Status put_chunk(const std::string& hash, std::string_view bytes, const Attempt& by);
  Result<std::string> get_chunk(const std::string& hash) const;
  // Those that are not here, in order, each once.
  Result<std::vector<std::string>> missing(const std::vector<std::string>& hashes);
  // Refuses what check_object refuses, and chunks that are missing or of another size than
  // declared.
  Result<proto::ObjectManifest> put_object(proto::ObjectManifest manifest);
  // Runs `apply` for an attempt's manifest with these chunks while none of them can go; it returns
  // whether the manifest is stored anew. kFailedPrecondition names the first chunk that is not
  // here.
  Status commit(const Attempt& by, const std::vector<std::string>& hashes,
                const std::function<Result<bool>()>& apply);
  // A checkpoint whose chunks stay as long as the caller has it; also one that was removed while
  // somebody read it. kNotFound.
  Result<ManifestPointer> read_checkpoint(const std::string& id);
  // Removes what nothing refers to and nobody relies on; returns how many chunks went. `grace` is
  // what uploads have. Where another collection is under way it does nothing.
  Result<int64_t> collect(Clock::Duration grace);
  int64_t bytes() const { return chunks_.bytes(); }
  bool full() const { return chunks_.full(); }  // as ChunkStore's
  Status room() { return chunks_.room(); }

 private:
  using Hashes = std::unordered_set<std::string>;
  struct Held {
    std::unordered_map<std::string, bool> put;  // true: it was not here before
    std::shared_ptr<const Hashes> before;       // invariant 5; null: nothing
  };
  struct Reading {
    ManifestPointer manifest;
    Hashes chunks;
    std::optional<Clock::Duration> idle;  // since when nobody is known to have the manifest
  };
  Status check_chunk(const std::string& hash, std::string_view bytes) const;
  Result<std::vector<std::string>> unreferenced() const;
  Result<int64_t> sweep(Clock::Duration grace);

  // All of these need mutex_.
  // That the chunks of a file are here, as large as it says.
  Status find_chunks(const std::string& field, const proto::ObjectFile& file);
  void upload(const std::string& hash) { uploaded_[hash] = clock_.monotonic(); }
  void spare(const std::string& hash);  // from the collection that is under way, if one is
  void recall(const std::vector<std::string>& loose);
  void forget(Clock::Duration grace);  // the attempts that are over, and what has expired
  bool relied_on(const std::string& hash) const;

  ChunkStore& chunks_;
  JobStore& store_;
  const Clock& clock_;

  std::mutex collecting_;  // one collection at a time
  std::mutex mutex_;       // guards the rest and orders commits and collections
  bool recalled_ = false;
  std::map<Attempt, Held> held_;
  std::unordered_map<std::string, Clock::Duration> uploaded_;  // put or asked for, when last
  std::map<std::string, Reading> readings_;                    // by checkpoint
  std::optional<Hashes> spared_;                               // none: no collection is under way
};

}  // namespace weft
