// A service over a store and chunks in memory, with a small job to submit.
// Thread safety: one thread. Ownership: the fixture owns all of it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "coordinator/coordinator_service.h"
#include "proto/base/hash.h"
#include "proto/json/message_json.h"
#include "tests/coordinator/memory_chunks.h"

namespace weft {

class ServiceTest : public testing::Test {
 protected:
  explicit ServiceTest(std::unique_ptr<KeyValue> bytes = make_memory_key_value())
      : store_(JobStore::open(std::move(bytes), clock_).value()) {}

  std::string upload(const std::string& bytes) {
    const std::string hash = sha256_hex(bytes);
    EXPECT_TRUE(service_.put_chunk(hash, bytes).ok());
    proto::ObjectManifest manifest;
    auto* file = manifest.add_files();
    file->set_path("a.txt");
    file->set_size(static_cast<int64_t>(bytes.size()));
    auto* chunk = file->add_chunks();
    chunk->set_hash(hash);
    chunk->set_size(file->size());
    return service_.put_object(manifest).value().id();
  }
  // Chunks of 1000 bytes, so that headers and tokenizers lie in several.
  std::string upload_folder(const std::string& folder) {
    proto::ObjectManifest manifest;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      std::ifstream in(entry.path(), std::ios::binary);
      const std::string bytes{std::istreambuf_iterator<char>(in), {}};
      auto* file = manifest.add_files();
      file->set_path(entry.path().filename());
      file->set_size(static_cast<int64_t>(bytes.size()));
      for (size_t at = 0; at < bytes.size(); at += 1000) {
        const std::string piece = bytes.substr(at, 1000);
        EXPECT_TRUE(service_.put_chunk(sha256_hex(piece), piece).ok());
        auto* chunk = file->add_chunks();
        chunk->set_hash(sha256_hex(piece));
        chunk->set_size(static_cast<int64_t>(piece.size()));
      }
    }
    return service_.put_object(manifest).value().id();
  }
  proto::JobSpec spec() {
    proto::JobSpec spec;
    spec.set_name("small");
    spec.set_kind(proto::JOB_KIND_PRETRAIN);
    spec.mutable_model()->set_family("gpt2");
    auto& config = *spec.mutable_model()->mutable_config()->mutable_fields();
    for (const auto& [key, value] : std::map<std::string, double>{{"n_layer", 1},
                                                                  {"n_head", 2},
                                                                  {"n_embd", 8},
                                                                  {"n_positions", 16},
                                                                  {"vocab_size", 257}}) {
      config[key].set_number_value(value);
    }
    spec.mutable_tokenizer()->set_type(proto::TOKENIZER_TYPE_BYTE);
    auto* task = spec.add_tasks();
    task->set_type(proto::TASK_TYPE_CAUSAL_LM);
    task->mutable_data()->set_train(data_);
    spec.mutable_training()->set_steps(10);
    spec.mutable_training()->set_sequence_length(16);
    return spec;
  }
  // With two heads, 8 rows of 16 tokens, and whatever else is written.
  std::string submit_with(const std::string& parallel, const std::string& training = "{}") {
    proto::JobSpec wanted = spec();
    EXPECT_TRUE(read_json(parallel, *wanted.mutable_parallel()).ok());
    proto::TrainingSpec more;
    EXPECT_TRUE(read_json(training, more).ok());
    wanted.mutable_training()->MergeFrom(more);
    const auto job = service_.submit(wanted, "", "");
    EXPECT_TRUE(job) << job.error().to_string();
    return job ? job->id() : "";
  }
  std::string submit(const std::string& key = "") {
    const auto job = service_.submit(spec(), key, "hash");
    EXPECT_TRUE(job) << job.error().to_string();
    return job ? job->id() : "";
  }
  Result<proto::Job> resume(const std::string& id, const std::string& change = "{}") {
    proto::ResumeRequest request;
    const Status read = read_json(change, request);
    EXPECT_TRUE(read.ok()) << read.to_string();
    return service_.resume(id, request);
  }
  void set_state(const std::string& id, proto::JobState state, int attempt = 1) {
    ASSERT_TRUE(store_->edit_job(id, [&](JobEdit& edit) {
      edit.job.set_state(state);
      edit.job.set_attempt(attempt);
      return Status();
    }));
  }
  void join(const std::string& name, int slots, int64_t memory_bytes = 0) {
    proto::NodeInfo node;
    node.set_memory_bytes(memory_bytes);
    node.set_name(name);
    node.set_slots(slots);
    node.set_state(proto::NODE_STATE_READY);
    ASSERT_TRUE(store_->put_node(node, true).ok());
  }

  SimulatedClock clock_{1000};
  MemoryChunks chunks_;
  std::unique_ptr<JobStore> store_;
  Content content_{chunks_, *store_, clock_};
  CoordinatorService service_{{*store_, content_, clock_, "", "test"}};
  std::string data_ = upload("some text to learn");
};

}  // namespace weft
