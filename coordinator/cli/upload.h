// Local files as objects of the coordinator: cut into chunks of 4 MiB, named by their SHA-256; only
// chunks that it lacks are sent.
//
// Thread safety: one thread. Ownership: the client outlives the uploader.
// Invariant: a file that changes while it is read is an error, never a mixture.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "coordinator/cli/api_client.h"
#include "coordinator/cli/local_input.h"
#include "proto/object.pb.h"

namespace weft::cli {

class Uploader {
 public:
  // `progress(done, whole)` in bytes; may be empty.
  Uploader(ApiClient& client, std::function<void(int64_t, int64_t)> progress)
      : client_(client), progress_(std::move(progress)) {}

  // The id of the input's object. The same path is uploaded once.
  Result<std::string> upload(const LocalInput& input);
  int64_t bytes_sent() const { return bytes_sent_; }

 private:
  struct Piece {  // one chunk of a local file
    std::string file;
    int64_t offset = 0;
    proto::ChunkRef chunk;
  };
  Status add_file(const std::string& name, const std::string& path, proto::ObjectManifest& manifest,
                  std::vector<Piece>& pieces);
  Status send_missing(const std::vector<Piece>& pieces);

  ApiClient& client_;
  std::function<void(int64_t, int64_t)> progress_;
  std::map<std::string, std::string> ids_;  // path -> object
  int64_t bytes_sent_ = 0;
};

}  // namespace weft::cli
