#include "coordinator/store/content.h"

#include <algorithm>
#include <set>

#include "proto/base/hash.h"
#include "proto/json/file_path.h"

namespace weft {
namespace {

constexpr size_t kRemovedAtOnce = 64;  // chunks; puts and commits go on in between

Status check_chunk_name(const std::string& hash) {
  if (is_sha256_hex(hash)) return {};
  return Status::invalid("hash", hash.substr(0, 80), "must be 64 lower-case hex digits (SHA-256)");
}

Status check_file(const std::string& field, const proto::ObjectFile& file) {
  if (Status status = check_file_path(file.path()); !status.ok()) {
    return Status::invalid(field + ".path", status.value(), status.rule());
  }
  int64_t sum = 0;
  for (int i = 0; i < file.chunks_size(); ++i) {
    const proto::ChunkRef& chunk = file.chunks(i);
    const std::string part = field + ".chunks[" + std::to_string(i) + "]";
    WEFT_RETURN_IF_ERROR(check_chunk_name(chunk.hash()).with_field(part + ".hash"));
    if (chunk.size() < 1 || chunk.size() > kChunkBytesMax) {
      return Status::invalid(part + ".size", std::to_string(chunk.size()),
                             "must be 1 to " + std::to_string(kChunkBytesMax));
    }
    sum += chunk.size();
  }
  if (sum != file.size()) {
    return Status::invalid(field + ".size", std::to_string(file.size()),
                           "must be the sum of its chunks, " + std::to_string(sum));
  }
  return {};
}

Status missing_chunk(const std::string& hash) {
  return Status(Code::kFailedPrecondition, "a chunk is missing; put it first")
      .with_field("chunk")
      .with_value(hash);
}

void add_chunks(const proto::ObjectFile& file, std::vector<std::string>& hashes) {
  for (const auto& chunk : file.chunks()) hashes.push_back(chunk.hash());
}

}  // namespace

std::string object_id(const proto::ObjectManifest& manifest) {
  proto::ObjectManifest files;
  *files.mutable_files() = manifest.files();
  return "obj-" + sha256_hex(files.SerializeAsString()).substr(0, 32);
}

Status check_object(const proto::ObjectManifest& manifest) {
  if (manifest.files().empty()) return Status::invalid("files", "", "must name at least one file");
  std::set<std::string> paths;
  for (int i = 0; i < manifest.files_size(); ++i) {
    const std::string field = "files[" + std::to_string(i) + "]";
    WEFT_RETURN_IF_ERROR(check_file(field, manifest.files(i)));
    if (!paths.insert(manifest.files(i).path()).second) {
      return Status::invalid(field + ".path", manifest.files(i).path(), "must be unique");
    }
  }
  for (const std::string& path : paths) {
    for (size_t slash = path.find('/'); slash != std::string::npos;
         slash = path.find('/', slash + 1)) {
      if (paths.contains(path.substr(0, slash))) {
        return Status::invalid("files.path", path, "must not lie below another of the files");
      }
    }
  }
  return {};
}

std::vector<std::string> chunks_of(const proto::ObjectManifest& manifest) {
  std::vector<std::string> hashes;
  for (const auto& file : manifest.files()) add_chunks(file, hashes);
  return hashes;
}

std::vector<std::string> chunks_of(const proto::CheckpointManifest& manifest) {
  std::vector<std::string> hashes;
  add_chunks(manifest.tokenizer(), hashes);
  for (const auto& file : manifest.extra_files()) add_chunks(file, hashes);
  for (const auto& tensor : manifest.tensors()) {
    for (const auto& tile : tensor.tiles()) {
      for (const auto& chunk : tile.chunks()) hashes.push_back(chunk.hash());
    }
  }
  return hashes;
}

Status Content::check_chunk(const std::string& hash, std::string_view bytes) const {
  WEFT_RETURN_IF_ERROR(check_chunk_name(hash));
  if (bytes.empty() || static_cast<int64_t>(bytes.size()) > kChunkBytesMax) {
    return Status::invalid("size", std::to_string(bytes.size()),
                           "must be 1 to " + std::to_string(kChunkBytesMax) + " bytes");
  }
  return {};
}

Status Content::put_chunk(const std::string& hash, std::string_view bytes) {
  WEFT_RETURN_IF_ERROR(check_chunk(hash, bytes));
  {
    std::lock_guard lock(mutex_);
    upload(hash);
  }
  return chunks_.put(hash, bytes);
}

Status Content::put_chunk(const std::string& hash, std::string_view bytes, const Attempt& by) {
  WEFT_RETURN_IF_ERROR(check_chunk(hash, bytes));
  {
    std::lock_guard lock(mutex_);
    held_[by].put.try_emplace(hash, !chunks_.has(hash));
  }
  return chunks_.put(hash, bytes);
}

Result<std::string> Content::get_chunk(const std::string& hash) const {
  WEFT_RETURN_IF_ERROR(check_chunk_name(hash));
  auto bytes = chunks_.get(hash);
  if (bytes || bytes.error().code() != Code::kResourceExhausted) return bytes;
  static_cast<void>(chunks_.room());  // opens a store that a full disk closed, where it can
  return chunks_.get(hash);
}

Result<std::vector<std::string>> Content::missing(const std::vector<std::string>& hashes) {
  std::vector<std::string> absent;
  std::unordered_set<std::string> seen;
  for (const std::string& hash : hashes) {
    WEFT_RETURN_IF_ERROR(check_chunk_name(hash));
    if (!seen.insert(hash).second) continue;
    std::lock_guard lock(mutex_);
    if (chunks_.has(hash)) {
      upload(hash);
    } else {
      absent.push_back(hash);
    }
  }
  return absent;
}

Result<proto::ObjectManifest> Content::put_object(proto::ObjectManifest manifest) {
  WEFT_RETURN_IF_ERROR(check_object(manifest));
  const proto::ObjectManifest given = manifest;  // errors name its order
  std::sort(manifest.mutable_files()->begin(), manifest.mutable_files()->end(),
            [](const auto& a, const auto& b) { return a.path() < b.path(); });
  const std::string id = object_id(manifest);
  if (!manifest.id().empty() && manifest.id() != id) {
    return fail(Status::invalid("id", manifest.id(), "must be " + id + " for these files"));
  }
  if (auto known = store_.object(id)) return *known;
  int64_t bytes = 0;
  for (const auto& file : manifest.files()) bytes += file.size();
  if (manifest.bytes() != 0 && manifest.bytes() != bytes) {
    return fail(Status::invalid("bytes", std::to_string(manifest.bytes()),
                                "must be the sum of the files, " + std::to_string(bytes)));
  }
  manifest.set_id(id);
  manifest.set_bytes(bytes);
  manifest.set_created_ms(clock_.wall_ms());
  std::lock_guard lock(mutex_);
  for (int i = 0; i < given.files_size(); ++i) {
    WEFT_RETURN_IF_ERROR(find_chunks("files[" + std::to_string(i) + "]", given.files(i)));
  }
  WEFT_RETURN_IF_ERROR(store_.put_object(manifest));
  return manifest;
}

Status Content::find_chunks(const std::string& field, const proto::ObjectFile& file) {
  for (int i = 0; i < file.chunks_size(); ++i) {
    const proto::ChunkRef& chunk = file.chunks(i);
    const std::optional<int64_t> size = chunks_.size(chunk.hash());
    if (!size) return missing_chunk(chunk.hash());
    if (*size != chunk.size()) {
      return Status::invalid(field + ".chunks[" + std::to_string(i) + "].size",
                             std::to_string(chunk.size()),
                             "must be the size of the stored chunk, " + std::to_string(*size));
    }
    spare(chunk.hash());
  }
  return {};
}

Status Content::commit(const Attempt& by, const std::vector<std::string>& hashes,
                       const std::function<Result<bool>()>& apply) {
  std::lock_guard lock(mutex_);
  for (const std::string& hash : hashes) {
    if (!chunks_.has(hash)) {
      WEFT_RETURN_IF_ERROR(chunks_.room());  // a store that a full disk closed has none
      if (!chunks_.has(hash)) return missing_chunk(hash);
    }
    spare(hash);
  }
  WEFT_ASSIGN_OR_RETURN(const bool anew, apply());
  const auto held = held_.find(by);
  if (!anew || held == held_.end()) return {};
  bool stored_since = false;
  for (const std::string& hash : hashes) {
    const auto chunk = held->second.put.find(hash);
    if (chunk == held->second.put.end()) continue;
    stored_since = stored_since || chunk->second;
    held->second.put.erase(chunk);
  }
  if (stored_since) held->second.before.reset();
  return {};
}

Result<Content::ManifestPointer> Content::read_checkpoint(const std::string& id) {
  std::lock_guard lock(mutex_);
  auto reading = readings_.find(id);
  if (reading == readings_.end()) {
    WEFT_ASSIGN_OR_RETURN(auto manifest, store_.checkpoint(id));
    const auto hashes = chunks_of(manifest);
    reading = readings_.try_emplace(id).first;
    reading->second.chunks.insert(hashes.begin(), hashes.end());
    reading->second.manifest =
        std::make_shared<const proto::CheckpointManifest>(std::move(manifest));
  }
  reading->second.idle.reset();
  return reading->second.manifest;
}

void Content::spare(const std::string& hash) {
  if (spared_) spared_->insert(hash);
}

Result<int64_t> Content::collect(Clock::Duration grace) {
  const std::unique_lock alone(collecting_, std::try_to_lock);
  if (!alone) return 0;
  {
    std::lock_guard lock(mutex_);
    spared_.emplace();
  }
  Result<int64_t> count = sweep(grace);
  std::lock_guard lock(mutex_);
  spared_.reset();
  return count;
}

Result<int64_t> Content::sweep(Clock::Duration grace) {
  static_cast<void>(chunks_.room());  // where nobody puts, nobody else opens a store that was full
  WEFT_ASSIGN_OR_RETURN(const std::vector<std::string> loose, unreferenced());
  {
    std::lock_guard lock(mutex_);
    if (!std::exchange(recalled_, true)) recall(loose);
    forget(grace);
  }
  int64_t count = 0;
  for (size_t first = 0; first < loose.size(); first += kRemovedAtOnce) {
    std::lock_guard lock(mutex_);
    std::vector<std::string> some;
    for (size_t i = first; i < std::min(first + kRemovedAtOnce, loose.size()); ++i) {
      if (!relied_on(loose[i])) some.push_back(loose[i]);
    }
    WEFT_RETURN_IF_ERROR(chunks_.remove(some));
    count += static_cast<int64_t>(some.size());
  }
  return count;
}

Result<std::vector<std::string>> Content::unreferenced() const {
  Hashes referenced;
  WEFT_RETURN_IF_ERROR(store_.for_each_checkpoint([&](const proto::CheckpointManifest& manifest) {
    for (auto& hash : chunks_of(manifest)) referenced.insert(std::move(hash));
  }));
  WEFT_RETURN_IF_ERROR(store_.for_each_object([&](const proto::ObjectManifest& manifest) {
    for (auto& hash : chunks_of(manifest)) referenced.insert(std::move(hash));
  }));
  std::vector<std::string> loose;
  WEFT_RETURN_IF_ERROR(chunks_.for_each([&](const std::string& hash, int64_t) {
    if (!referenced.contains(hash)) loose.push_back(hash);
  }));
  return loose;
}

void Content::recall(const std::vector<std::string>& loose) {
  const auto before = std::make_shared<const Hashes>(loose.begin(), loose.end());
  for (const JobPointer& job : store_.jobs()) {
    if (is_active(job->state())) held_[{job->id(), job->attempt()}].before = before;
  }
  for (const std::string& hash : loose) upload(hash);
}

void Content::forget(Clock::Duration grace) {
  const Clock::Duration now = clock_.monotonic();
  std::erase_if(uploaded_, [&](const auto& entry) { return now - entry.second > grace; });
  std::erase_if(held_, [&](const auto& entry) {
    const auto& [id, number] = entry.first;
    const JobPointer job = store_.find(id);
    return !job || !is_active(job->state()) || job->attempt() != number;
  });
  for (auto& [id, reading] : readings_) {
    if (reading.manifest.use_count() > 1) {
      reading.idle.reset();
    } else if (!reading.idle) {
      reading.idle = now;
    }
  }
  std::erase_if(readings_, [&](const auto& entry) {
    const auto& idle = entry.second.idle;
    return idle && now - *idle >= kReadAgain;
  });
}

bool Content::relied_on(const std::string& hash) const {
  if (spared_->contains(hash) || uploaded_.contains(hash)) return true;
  return std::any_of(held_.begin(), held_.end(),
                     [&](const auto& entry) {
                       const Held& held = entry.second;
                       return held.put.contains(hash) ||
                              (held.before && held.before->contains(hash));
                     }) ||
         std::any_of(readings_.begin(), readings_.end(),
                     [&](const auto& entry) { return entry.second.chunks.contains(hash); });
}

}  // namespace weft
