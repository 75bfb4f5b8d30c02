#include "coordinator/store/content.h"

#include <algorithm>
#include <set>
#include <unordered_set>

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

Status Content::put_chunk(const std::string& hash, std::string_view bytes) {
  WEFT_RETURN_IF_ERROR(check_chunk_name(hash));
  if (bytes.empty() || static_cast<int64_t>(bytes.size()) > kChunkBytesMax) {
    return Status::invalid("size", std::to_string(bytes.size()),
                           "must be 1 to " + std::to_string(kChunkBytesMax) + " bytes");
  }
  {
    std::lock_guard lock(mutex_);
    touch(hash);
  }
  return chunks_.put(hash, bytes);
}

Result<std::string> Content::get_chunk(const std::string& hash) const {
  WEFT_RETURN_IF_ERROR(check_chunk_name(hash));
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
      touch(hash);
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
    WEFT_RETURN_IF_ERROR(hold_chunks("files[" + std::to_string(i) + "]", given.files(i)));
  }
  WEFT_RETURN_IF_ERROR(store_.put_object(manifest));
  return manifest;
}

Status Content::hold_chunks(const std::string& field, const proto::ObjectFile& file) {
  for (int i = 0; i < file.chunks_size(); ++i) {
    const proto::ChunkRef& chunk = file.chunks(i);
    const std::optional<int64_t> size = chunks_.size(chunk.hash());
    if (!size) return missing_chunk(chunk.hash());
    if (*size != chunk.size()) {
      return Status::invalid(field + ".chunks[" + std::to_string(i) + "].size",
                             std::to_string(chunk.size()),
                             "must be the size of the stored chunk, " + std::to_string(*size));
    }
    touch(chunk.hash());
  }
  return {};
}

Status Content::with_chunks(const std::vector<std::string>& hashes,
                            const std::function<Status()>& commit) {
  std::lock_guard lock(mutex_);
  for (const std::string& hash : hashes) {
    if (!chunks_.has(hash)) return missing_chunk(hash);
    touch(hash);
  }
  return commit();
}

Result<int64_t> Content::collect(Clock::Duration grace) {
  std::unordered_set<std::string> referenced;
  WEFT_RETURN_IF_ERROR(store_.for_each_checkpoint([&](const proto::CheckpointManifest& manifest) {
    for (auto& hash : chunks_of(manifest)) referenced.insert(std::move(hash));
  }));
  WEFT_RETURN_IF_ERROR(store_.for_each_object([&](const proto::ObjectManifest& manifest) {
    for (auto& hash : chunks_of(manifest)) referenced.insert(std::move(hash));
  }));
  std::map<std::string, Clock::Duration> loose;
  WEFT_RETURN_IF_ERROR(chunks_.for_each([&](const std::string& hash, int64_t) {
    if (!referenced.contains(hash)) loose[hash] = clock_.monotonic();
  }));
  return remove(unused(std::move(loose), grace));
}

std::vector<std::string> Content::unused(std::map<std::string, Clock::Duration> loose,
                                         Clock::Duration grace) {
  std::lock_guard lock(mutex_);
  const Clock::Duration now = clock_.monotonic();
  std::erase_if(touched_, [&](const auto& entry) { return now - entry.second > grace; });
  std::vector<std::string> old;
  for (auto& [hash, since] : loose) {
    if (auto it = unreferenced_.find(hash); it != unreferenced_.end()) since = it->second;
    if (now - since >= grace && !touched_.contains(hash)) old.push_back(hash);
  }
  for (const std::string& hash : old) loose.erase(hash);
  unreferenced_ = std::move(loose);
  return old;
}

Result<int64_t> Content::remove(const std::vector<std::string>& old) {
  int64_t count = 0;
  for (size_t first = 0; first < old.size(); first += kRemovedAtOnce) {
    std::lock_guard lock(mutex_);
    std::vector<std::string> some;
    for (size_t i = first; i < std::min(first + kRemovedAtOnce, old.size()); ++i) {
      if (!touched_.contains(old[i])) some.push_back(old[i]);
    }
    WEFT_RETURN_IF_ERROR(chunks_.remove(some));
    count += static_cast<int64_t>(some.size());
  }
  return count;
}

}  // namespace weft
