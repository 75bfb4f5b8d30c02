#include "coordinator/cli/upload.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "proto/base/hash.h"

namespace weft::cli {
namespace {

constexpr int64_t kChunkBytes = int64_t{4} << 20;
constexpr size_t kHashesAsked = 5000;

Result<std::string> read_piece(const std::string& path, int64_t offset, int64_t size) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes(static_cast<size_t>(size), '\0');
  file.seekg(offset);
  file.read(bytes.data(), size);
  if (!file) return fail(Code::kUnavailable, "cannot read " + path + ": it became shorter");
  return bytes;
}

}  // namespace

Status Uploader::add_file(const std::string& name, const std::string& path,
                          proto::ObjectManifest& manifest, std::vector<Piece>& pieces) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Status(Code::kUnavailable, "cannot open " + path);
  proto::ObjectFile& entry = *manifest.add_files();
  entry.set_path(name);
  std::string bytes(static_cast<size_t>(kChunkBytes), '\0');
  int64_t offset = 0;
  while (file.read(bytes.data(), kChunkBytes), file.gcount() > 0) {
    Piece piece;
    piece.file = path;
    piece.offset = offset;
    piece.chunk.set_size(file.gcount());
    piece.chunk.set_hash(
        sha256_hex(std::string_view(bytes.data(), static_cast<size_t>(file.gcount()))));
    *entry.add_chunks() = piece.chunk;
    offset += file.gcount();
    pieces.push_back(std::move(piece));
  }
  if (file.bad()) return Status(Code::kUnavailable, "cannot read " + path);
  entry.set_size(offset);
  manifest.set_bytes(manifest.bytes() + offset);
  return Status();
}

Status Uploader::send_missing(const std::vector<Piece>& pieces) {
  std::set<std::string> missing;
  for (size_t at = 0; at < pieces.size(); at += kHashesAsked) {
    proto::ChunkHashes asked, answer;
    for (size_t i = at; i < std::min(pieces.size(), at + kHashesAsked); ++i) {
      asked.add_hashes(pieces[i].chunk.hash());
    }
    WEFT_RETURN_IF_ERROR(client_.send("POST", "chunks/missing", &asked, &answer));
    missing.insert(answer.hashes().begin(), answer.hashes().end());
  }
  int64_t whole = 0, done = 0;
  for (const Piece& piece : pieces) whole += missing.count(piece.chunk.hash()) * piece.chunk.size();
  for (const Piece& piece : pieces) {
    if (missing.erase(piece.chunk.hash()) == 0) continue;
    WEFT_ASSIGN_OR_RETURN(std::string bytes,
                          read_piece(piece.file, piece.offset, piece.chunk.size()));
    if (sha256_hex(bytes) != piece.chunk.hash()) {
      return Status(Code::kUnavailable, piece.file + " changed while it was read; submit again");
    }
    WEFT_RETURN_IF_ERROR(client_.put_bytes("chunks/" + piece.chunk.hash(), std::move(bytes)));
    done += piece.chunk.size();
    bytes_sent_ += piece.chunk.size();
    if (progress_) progress_(done, std::max(whole, done));
  }
  return Status();
}

Result<std::string> Uploader::upload(const LocalInput& input) {
  const std::string key = fmt::format("{}:{}", static_cast<int>(input.kind), input.path);
  if (const auto it = ids_.find(key); it != ids_.end()) return it->second;
  WEFT_ASSIGN_OR_RETURN(const auto files, files_of(input));
  proto::ObjectManifest manifest, stored;
  std::vector<Piece> pieces;
  for (const auto& [path, name] : files) {
    WEFT_RETURN_IF_ERROR(add_file(name, path, manifest, pieces));
  }
  if (manifest.bytes() == 0) {
    return fail(Status::invalid(input.field, input.path, "must not be empty"));
  }
  WEFT_RETURN_IF_ERROR(send_missing(pieces));
  WEFT_RETURN_IF_ERROR(client_.send("POST", "objects", &manifest, &stored));
  return ids_[key] = stored.id();
}

}  // namespace weft::cli
